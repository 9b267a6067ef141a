"""The tables of docs/statistics.md against the names in the code."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from hand_made import truth_of

from mmdefocus.evaluation.statistics import Breakdown, ClassificationStatistics, DetectionStatistics, analyse_detections
from mmdefocus.evaluation.statistics.coco_evaluation import TABLE
from mmdefocus.evaluation.statistics.worst_cases import Reason

TEXT = (Path(__file__).parents[2] / 'docs' / 'statistics.md').read_text()


def _names(header: str, number: int = 0) -> list[str]:
    """Return the names in the first column of a table; of several tables with this header, that of the number."""
    rows = TEXT.split(f'\n{header}\n|')[number + 1].split('\n\n')[0].splitlines()[1:]
    return [row.split('|')[1].strip().strip('`') for row in rows]


def _fields(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


@pytest.mark.parametrize(('number', 'kind'), enumerate((DetectionStatistics, ClassificationStatistics)))
def test_every_field_has_a_row(number: int, kind: type) -> None:
    assert _names('| field | meaning | how to read it |', number) == _fields(kind)


def test_formulas_are_those_of_fields() -> None:
    assert set(_names('| field | formula | source |')) < set(_fields(DetectionStatistics))


def test_kinds_of_errors() -> None:
    errors = [error.name for error in analyse_detections(truth_of([[]]), []).errors]

    assert _names('| `name` | a wrong prediction is of this kind if | corrected by | what to do |') == errors


def test_reasons_of_misses() -> None:
    assert _names('| `reason` | meaning | what to do |') == list(get_args(Reason))


def test_groups() -> None:
    breakdown = analyse_detections(truth_of([[]]), []).breakdown
    rows = TEXT.split('\n| `breakdown` | by | groups |\n|')[1].split('\n\n')[0].splitlines()[1:]

    assert _names('| `breakdown` | by | groups |') == _fields(Breakdown)
    for row, (name, groups) in zip(rows, vars(breakdown).items(), strict=True):
        if name != 'size_quartile':
            assert re.findall('`([^`]+)`', row)[1:] == [group.name for group in groups]


def test_names_of_the_table() -> None:
    sentence = TEXT.split('- **`table`** has ')[1].split('. As in')[0]

    assert re.findall('`([^`]+)`', sentence) == list(TABLE)
