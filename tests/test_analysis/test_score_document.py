"""The tables of docs/scores.md against the registry of the scores."""

from pathlib import Path

from mmdefocus.analysis.scores import ALL_SCORES
from mmdefocus.analysis.scores.registry import INFINITY

LINES = (Path(__file__).parents[2] / 'docs' / 'scores.md').read_text().splitlines()


def rows_after(header):
    start = LINES.index(header) + 2
    return LINES[start : start + len(ALL_SCORES)]


def number(value):
    return '∞' if value == INFINITY else f'{value:g}'


def test_meanings_and_ranges():
    assert rows_after('| score | meaning | range | over-focus |') == [
        f'| `{score.name}` | {score.meaning} | {number(score.low)} to {number(score.high)} | '
        f'{score.over_focused or "neither"} |'
        for score in ALL_SCORES
    ]


def test_formulas_and_sources():
    assert rows_after('| score | formula | source |') == [
        f'| `{score.name}` | {score.formula} | {score.source} |' for score in ALL_SCORES
    ]


def test_names_and_titles_are_unique():
    assert len({score.name for score in ALL_SCORES}) == len({score.title for score in ALL_SCORES}) == len(ALL_SCORES)
