"""The report of an inspection as text for a terminal."""

import os
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .findings import DataReport, Example, Finding

_WIDTH = 110
_MOST_CLASSES = 30


def format_report(report: 'DataReport', most_examples: int) -> str:
    """Return splits, findings with what to do, and classes.

    Args:
        report: The report.
        most_examples: Most examples per finding.
    """
    parts = [_summary(report)]
    parts += [_finding(report, finding, most_examples) for finding in report.findings]
    if report.classes:
        parts.append(_classes(report))
    parts.append(conclusion(report))
    return '\n\n'.join(parts) + '\n'


def conclusion(report: 'DataReport') -> str:
    """Return the numbers of errors, warnings and notes, and what was not checked."""
    notes = len(report.findings) - len(report.errors) - len(report.warnings)
    counts = ((len(report.errors), 'error'), (len(report.warnings), 'warning'), (notes, 'note'))
    text = ', '.join(f'{count} {noun}{"" if count == 1 else "s"}' for count, noun in counts)
    missing = '' if report.images_read else '; damaged images and duplicates were not looked for (--fast)'
    return f'{text}{missing}'


def short_detail(example: 'Example', root: str) -> str:
    """Return the detail of an example with paths relative to the folder of the data."""
    return example.detail.replace(os.path.join(root, ''), '')


def _summary(report: 'DataReport') -> str:
    lines = [f'{report.root}: {report.format} format, {report.task}']
    thing = 'objects' if report.task == 'detection' else 'labels'
    for split, numbers in report.splits.items():
        lines.append(f'  {split:5}  {numbers["images"]:>7} images  {numbers["objects"]:>7} {thing}')
    lines += [line for note in report.notes for line in _wrap(note, '  ')]
    return '\n'.join(lines)


def _finding(report: 'DataReport', finding: 'Finding', most_examples: int) -> str:
    where = f' [{finding.split}]' if finding.split else ''
    lines = [f'{finding.severity.upper()}: {finding.title}{where} ({finding.kind})']
    lines += _wrap(finding.message, '  ')
    for example in finding.examples[:most_examples]:
        words = [os.path.relpath(example.image, report.root)] if example.image else []
        words += [f'annotation {example.annotation!r}'] if example.annotation is not None else []
        detail = short_detail(example, report.root)
        lines += _wrap(', '.join(words) + (': ' if words else '') + detail, '    - ', '      ')
    if finding.count > len(finding.examples[:most_examples]) > 0:
        lines.append(f'    - … {finding.count - len(finding.examples[:most_examples])} more')
    repair = f' Or: --repair {finding.repair}' if finding.repair else ''
    return '\n'.join([*lines, *_wrap(f'{finding.remedy}{repair}', '  → ', '    ')])


def _classes(report: 'DataReport') -> str:
    splits = list(report.splits)
    ordered = sorted(report.classes, key=lambda name: -sum(report.classes[name].values()))
    width = max(len(name) for name in [*ordered[:_MOST_CLASSES], 'class'])
    lines = [f'{"class":{width}}' + ''.join(f'  {split:>8}' for split in splits)]
    for name in ordered[:_MOST_CLASSES]:
        lines.append(f'{name:{width}}' + ''.join(f'  {report.classes[name][split]:>8}' for split in splits))
    if len(ordered) > _MOST_CLASSES:
        lines.append(f'… {len(ordered) - _MOST_CLASSES} more classes')
    return '\n'.join(lines)


def _wrap(text: str, first: str, following: str | None = None) -> list[str]:
    following = first if following is None else following
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    )
