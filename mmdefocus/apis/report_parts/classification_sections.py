"""Sections of the report of a classifier."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmdefocus.evaluation.statistics import ClassificationStatistics, ClassifiedImage
from mmdefocus.pages import Page, Part, Pictures, Table, Text, bars

from .detection_sections import add_calibration
from .exchanged_classes import confusion_part

_BARS = 40


def add_classification(page: Page, statistics: ClassificationStatistics, pictures: Mapping[str, np.ndarray]) -> None:
    """Add the sections of a classifier; `pictures` has the images that are no files."""
    known = sorted((one for one in statistics.classes if one.recall is not None), key=lambda one: one.recall or 0.0)
    parts: list[Part] = []
    if known:
        title = 'Recall of the classes, the weakest first' + (
            f' ({_BARS} of {len(known)})' if len(known) > _BARS else ''
        )
        parts.append(bars({one.name: one.recall or 0.0 for one in known[:_BARS]}, 'recall', 'class', title=title))
    rows = [[one.name, one.images, one.predictions, one.precision, one.recall, one.f1] for one in statistics.classes]
    parts.append(Table(['class', 'images', 'predictions', 'precision', 'recall', 'F1'], rows))
    page.add(
        'Accuracy',
        Table(['metric', 'value'], [['top 1', statistics.top1], ['top 5', statistics.top5]]),
        *parts,
        note='Recall is the share of the images of a class that are recognised, precision the share of the predictions '
        'of a class that are right.',
    )
    confusion = confusion_part(statistics.confusion, statistics.labels)
    page.add('Confusion', confusion, note='The row is the true class, the column the predicted one.')
    page.add(
        'Worst mistakes',
        _images(statistics.worst_mistakes, pictures),
        note='Wrong predictions with the highest scores.',
    )
    page.add(
        'Least confident hits',
        _images(statistics.least_confident_hits, pictures),
        note='Right predictions with the lowest scores.',
    )
    add_calibration(page, statistics.calibration)


def _images(images: Sequence[ClassifiedImage], pictures: Mapping[str, np.ndarray]) -> Pictures | Text:
    if not images:
        return Text('There are none.')
    return Pictures(
        [
            (
                pictures.get(one.path, Path(one.path)),
                f'True {one.truth}, predicted {one.prediction} with score {one.score:.2f}'
                + ('' if one.truth == one.prediction else f'; score of the true class {one.truth_score:.2f}')
                + f'. {Path(one.path).name}',
            )
            for one in images
        ],
        columns=6,
    )
