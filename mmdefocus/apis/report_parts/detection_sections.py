"""Sections of the report of a detector."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmdefocus.evaluation.statistics import Calibration, DetectionStatistics, Group
from mmdefocus.pages import Cell, Chart, Page, Part, Table, Text, bars, lines

from .exchanged_classes import confusion_part
from .mistake_pictures import LEGEND, false_negative_pictures, false_positive_pictures

_CURVES = 12  # classes of the chart of curves: the weakest ones
_BARS = 40


def add_detection(page: Page, statistics: DetectionStatistics, paths: Mapping[Any, Path]) -> None:
    """Add the sections of a detector."""
    iou = f'{statistics.iou:g}'
    page.add(
        'COCO metrics',
        Table(['metric', 'value'], [[name, value] for name, value in statistics.table.items()]),
        note='AP is the mean over the IoUs 0.5, 0.55, …, 0.95 and over the classes; s, m and l are small (area below '
        '32² pixels), medium and large (from 96²) objects; AR is the recall with this many boxes per image.',
    )
    page.add(
        'Classes',
        *_classes(statistics),
        note='The best threshold is the score with the largest F1, the harmonic mean of precision and recall, at IoU '
        f'{iou}. Few objects make a number uncertain.',
    )
    page.add('Precision and recall', *_curves(statistics), note=f'A box is right from IoU {iou} on.')
    page.add(
        'Confusion',
        confusion_part(statistics.confusion.counts, statistics.confusion.labels),
        note=f'Boxes with a score from {statistics.confusion.threshold:.2f} on. The row is the true class, the '
        'column the predicted one. The column “background” counts missed objects, the row “background” boxes '
        'without an object.',
    )
    errors = [error for error in statistics.errors if error.delta_ap is not None]
    page.add(
        'Kinds of errors',
        replace(
            bars({error.name: error.delta_ap or 0.0 for error in errors}, f'rise of AP at IoU {iou}', 'error'),
            numbers=None,  # they are in the table
        )
        if errors
        else Text('The validation set has no objects.'),
        Table(
            ['error', 'count', 'count at any score', 'rise of AP'],
            [[error.name, error.count, error.count_all, error.delta_ap] for error in statistics.errors],
        ),
        note='By how much AP would rise without this kind of error and with all others (TIDE, arXiv 2008.08115).',
    )
    page.add(
        'False positives',
        false_positive_pictures(statistics.false_positives, paths),
        note=f'The wrong boxes with the highest scores. {LEGEND}',
    )
    page.add(
        'False negatives',
        false_negative_pictures(statistics.false_negatives, paths),
        note=f'The largest missed objects. {LEGEND}',
    )
    parts = statistics.breakdown
    page.add(
        'Size, crowding and shape',
        *_groups('Size', parts.size),
        *_groups('Size, a quarter of the objects each', parts.size_quartile),
        *_groups('Crowding: number of near objects', parts.crowding),
        *_groups('Shape: width / height', parts.aspect_ratio),
        *_groups('Objects in the image', parts.objects_in_image),
        note=f'Recall at the best common threshold, and AP at IoU {iou}, of objects that have something in common.',
    )
    add_calibration(page, statistics.calibration)


def add_calibration(page: Page, calibration: Calibration) -> None:
    """Add the section on scores as probabilities."""
    bins = [one for one in calibration.bins if one.count]
    if calibration.error is None or not bins:
        page.add('Calibration', Text(f'No prediction has a score from {calibration.lowest:g} on.'))
        return
    scores = [one.score if one.score is not None else math.nan for one in bins]
    accuracies = [one.accuracy if one.accuracy is not None else math.nan for one in bins]
    page.add(
        'Calibration',
        lines(
            {'predictions': (scores, accuracies), 'ideal': ([calibration.lowest, 1.0], [calibration.lowest, 1.0])},
            'score',
            'share of right predictions',
            title='Scores as probabilities',
            limits=(0, 1.02),
        ),
        Table(
            ['scores', 'predictions', 'mean score', 'right'],
            [[f'{one.lowest:.2f} to {one.highest:.2f}', one.count, one.score, one.accuracy] for one in bins],
        ),
        note=f'Scores from {calibration.lowest:g} on. The expected calibration error is {calibration.error:.3f}: 0 '
        'means that 80 of 100 predictions with score 0.8 are right. Points below the ideal line are overconfident.',
    )


def _classes(statistics: DetectionStatistics) -> list[Part]:
    known = sorted((one for one in statistics.classes if one.AP is not None), key=lambda one: one.AP or 0.0)
    rows: list[list[Cell]] = [
        [
            one.name,
            one.objects,
            one.predictions,
            one.AP,
            one.AP50,
            *((best.score, best.precision, best.recall, best.f1) if (best := one.threshold) else (None,) * 4),
        ]
        for one in statistics.classes
    ]
    columns = ['class', 'objects', 'predictions', 'AP', 'AP50', 'best threshold', 'precision', 'recall', 'F1']
    parts: list[Part] = [Table(columns, rows)]
    if known:
        title = 'AP of the classes, the weakest first' + (f' ({_BARS} of {len(known)})' if len(known) > _BARS else '')
        chart = bars({one.name: one.AP or 0.0 for one in known[:_BARS]}, 'AP', 'class', title=title)
        parts.insert(0, replace(chart, numbers=None))
    return parts


def _curves(statistics: DetectionStatistics) -> list[Chart | Text]:
    known = sorted((one for one in statistics.classes if one.curve is not None), key=lambda one: one.AP or 0.0)
    if not known:
        return [Text('The validation set has no objects.')]
    shown = {
        one.name: (one.curve.recall.tolist(), one.curve.precision.tolist()) for one in known[:_CURVES] if one.curve
    }
    title = f'The {_CURVES} weakest of {len(known)} classes' if len(known) > _CURVES else 'All classes'
    return [lines(shown, 'recall', 'precision', title=title, limits=(0, 1.02))]


def _groups(title: str, groups: tuple[Group, ...]) -> list[Part]:
    filled = [one for one in groups if one.objects]
    if not filled:
        return [Text(f'{title}: no objects.')]
    chart = bars(
        {
            'recall': {one.name: one.recall for one in filled if one.recall is not None},
            'AP': {one.name: one.average_precision for one in filled if one.average_precision is not None},
        },
        'share',
        'group',
        title=title,
    )
    rows = [
        [one.name, one.objects, one.found, one.recall, one.false_positives, one.average_precision] for one in groups
    ]
    columns = ['group', 'objects', 'found', 'recall', 'false positives', 'AP']
    return [replace(chart, numbers=Table(columns, rows))]
