"""The report of an inspection as one HTML page."""

import os
from collections.abc import Mapping
from pathlib import Path

from mmdefocus.datasets.inspection import DataReport, Finding
from mmdefocus.datasets.inspection.report_text import conclusion, short_detail
from mmdefocus.datasets.prepared.source_data import SourceData
from mmdefocus.pages import Chart, Page, Part, Pictures, Table, Text, bars, write_page

from .drawn_examples import Boxes, boxes_by_image, draw_examples

_MOST_BARS = 30
_KINDS = {'error': 'error', 'warning': 'warning', 'note': 'plain'}
_HISTOGRAMS = {
    'short_side': ('Short sides of boxes', 'boxes', 'short side in pixels'),
    'relative_area': ('Areas of boxes', 'boxes', 'share of the image'),
    'aspect_ratio': ('Forms of boxes', 'boxes', 'width / height'),
    'objects_per_image': ('Objects per image', 'images', 'objects'),
    'image_size': ('Sizes of images', 'images', 'width x height'),
}


def write_data_page(report: DataReport, source: SourceData, path: str | Path) -> Path:
    """Write a page with the findings, pictures of the worst examples, histograms and classes.

    Args:
        report: Report of the data.
        source: The data, for the other boxes of the images that are shown.
        path: File to write.

    Returns:
        The file.

    Raises:
        OSError: The file could not be written.
    """
    page = Page(f'Data check of {Path(report.root).name}', f'{report.root}, {report.format} format, {report.task}')
    page.add('Summary', *_summary(report))
    boxes = boxes_by_image(source)
    for finding in report.findings:
        page.add(_heading(finding), *_finding(finding, boxes, report.root))
    if report.classes:
        page.add('Classes', *_classes(report))
    page.add('Sizes', *_histograms(report))
    return write_page(page, path)


def _heading(finding: Finding) -> str:
    where = f' ({finding.split})' if finding.split else ''
    return f'{finding.severity.capitalize()}: {finding.title}{where}'


def _summary(report: DataReport) -> list[Part]:
    kind = 'error' if report.errors else 'warning' if report.warnings else 'good'
    thing = 'objects' if report.task == 'detection' else 'labels'
    parts: list[Part] = [
        Text(f'{conclusion(report)}.', kind),  # type: ignore[arg-type] # one of three words
        Table(
            ('split', 'images', thing),
            [(split, numbers['images'], numbers['objects']) for split, numbers in report.splits.items()],
        ),
    ]
    if report.findings:
        rows = [(one.severity, one.title, one.split or 'all', one.count, one.repair) for one in report.findings]
        parts.append(Table(('severity', 'finding', 'split', 'count', '--repair'), rows, 'Findings, the worst first'))
    if report.task == 'detection':
        limit = '' if report.max_objects is None else f', and at most {report.max_objects} objects per image'
        parts.append(
            Text(
                f'Objects were compared with a model of the strides {", ".join(map(str, report.strides))}, test images '
                f'of {report.image_size[0]}x{report.image_size[1]}{limit}.'
            )
        )
    return parts + [Text(note) for note in report.notes]


def _finding(finding: Finding, boxes: Boxes, root: str) -> list[Part]:
    repair = f' Or repair it: --repair {finding.repair}.' if finding.repair else ''
    parts: list[Part] = [
        Text(finding.message, _KINDS[finding.severity]),  # type: ignore[arg-type] # values of the table
        Text(f'What to do: {finding.remedy}{repair}'),
    ]
    pictures, others = draw_examples(finding, boxes, root)
    if pictures:
        parts.append(Pictures(pictures))
    if others:
        rows = [(_relative(one.image, root), _word(one.annotation), short_detail(one, root)) for one in others]
        used = [column for column in range(3) if any(row[column] is not None for row in rows)]
        columns = ('image', 'annotation', 'detail')
        parts.append(Table([columns[one] for one in used], [[row[one] for one in used] for row in rows]))
    if len(finding.examples) < finding.count:
        parts.append(Text(f'{finding.count - len(finding.examples)} more are not shown.'))
    return parts


def _relative(path: str, root: str) -> str | None:
    return os.path.relpath(path, root) if path else None


def _word(value: object) -> str | None:
    return None if value is None else str(value)


def _classes(report: DataReport) -> list[Part]:
    ordered = sorted(report.classes, key=lambda name: -sum(report.classes[name].values()))
    thing = 'boxes' if report.task == 'detection' else 'images'
    series = {split: {name: report.classes[name][split] for name in ordered[:_MOST_BARS]} for split in report.splits}
    rows: list[list[str | int]] = [
        [name, *(report.classes[name][split] for split in report.splits)] for name in ordered
    ]
    title = f'The {_MOST_BARS} most frequent of {len(ordered)} classes' if len(ordered) > _MOST_BARS else 'All classes'
    return [bars(series, thing, 'class', title=title), Table(('class', *report.splits), rows)]


def _histograms(report: DataReport) -> list[Chart]:
    charts = []
    for name, (title, length, bin_name) in _HISTOGRAMS.items():
        histogram: Mapping[str, Mapping[str, float]] = report.histograms.get(name, {})
        if any(histogram.values()):
            charts.append(bars(_trimmed(histogram), length, bin_name, title=title))
    return charts


def _trimmed(histogram: Mapping[str, Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
    """Leave out bins before the first and after the last that counts anything."""
    names = list(next(iter(histogram.values())))
    used = [number for number, name in enumerate(names) if any(bins[name] for bins in histogram.values())]
    shown = names[used[0] : used[-1] + 1] if used else names
    return {split: {name: bins[name] for name in shown} for split, bins in histogram.items()}
