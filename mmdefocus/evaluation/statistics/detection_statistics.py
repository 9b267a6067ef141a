"""All numbers of the report of a detector.

Shapes:
    C classes, R = 101 recalls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .average_precision import RECALLS
from .breakdown import Breakdown, break_down
from .calibration import Calibration, calibration
from .coco_evaluation import CocoEvaluation
from .detection_arrays import DetectionArrays, read_detections
from .error_types import ErrorType, classify_errors, count_errors
from .json_values import json_values
from .overlaps import find_overlaps
from .score_thresholds import BestThreshold, best_threshold
from .worst_cases import FalseNegative, FalsePositive, worst_false_negatives, worst_false_positives

# Most predictions of a detector with a fixed number of queries have scores near 0, and would hide the others.
LOWEST_CALIBRATED_SCORE = 0.1


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision against recall at the IoU of a match.

    Attributes:
        recall: 0, 0.01, …, 1, (R,).
        precision: The highest precision at this recall or a higher one, 0 where no threshold reaches it, (R,).
        score: The highest threshold that reaches the recall, NaN where none does, (R,).
    """

    recall: np.ndarray
    precision: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class DetectedClass:
    """How well one class is detected.

    Attributes:
        name: Name of the class.
        category_id: Its id in the annotation file.
        objects: Number of objects, without crowds.
        predictions: Number of predictions of this class, whatever their score.
        AP: COCO's AP over the IoUs 0.5, 0.55, …, 0.95; None without an object.
        AP50: AP at IoU 0.5; None without an object.
        threshold: Score threshold with the largest F1; None without an object or a right prediction.
        curve: Precision against recall; None without an object.
    """

    name: str
    category_id: Any
    objects: int
    predictions: int
    AP: float | None
    AP50: float | None
    threshold: BestThreshold | None
    curve: PrecisionRecallCurve | None


@dataclass(frozen=True)
class ConfusionMatrix:
    """What the objects are taken for.

    Attributes:
        threshold: Predictions from this score on count.
        labels: Names of the classes, and ``background``, C + 1.
        counts: Row: class of the object, column: class of the prediction that matches it, (C + 1, C + 1) int64. The
            last row has predictions that match no object, the last column objects that no prediction matches.
    """

    threshold: float
    labels: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True)
class DetectionStatistics:
    """The numbers of the report of a detector. None stands for a number that needs an object or a prediction.

    Attributes:
        iou: IoU of a match, for everything but ``table``, ``DetectedClass.AP`` and ``DetectedClass.AP50``.
        images: Number of images.
        objects: Number of objects, without crowds.
        crowds: Number of crowds; they do not count, nor do predictions that match one.
        predictions: Number of predictions.
        table: COCO's numbers, as ``DefocusCocoMetric`` computes them, unrounded.
        classes: The classes in the order of the annotation file.
        threshold: Score threshold with the largest F1 of all classes together; None without a right prediction.
        confusion: What the objects are taken for, from ``threshold`` on (of all predictions if it is None).
        errors: Kinds of errors and what they cost.
        false_positives: Wrong predictions, the highest score first.
        false_negatives: Objects that are not found from ``threshold`` on, the largest first.
        breakdown: Objects by size, crowding, shape and number in the image.
        calibration: Scores from 0.1 on against the share of right predictions.
    """

    iou: float
    images: int
    objects: int
    crowds: int
    predictions: int
    table: dict[str, float | None]
    classes: tuple[DetectedClass, ...]
    threshold: BestThreshold | None
    confusion: ConfusionMatrix
    errors: tuple[ErrorType, ...]
    false_positives: tuple[FalsePositive, ...]
    false_negatives: tuple[FalseNegative, ...]
    breakdown: Breakdown
    calibration: Calibration

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON has them."""
        return json_values(self)


def analyse_detections(
    truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], iou: float = 0.5
) -> DetectionStatistics:
    """Compute the numbers of the report of a detector from its boxes.

    Args:
        truth: Content of an annotation file in COCO format: ``images``, ``annotations`` and ``categories``. Ids may be
            any distinct numbers or texts. It stays as it is.
        predictions: Results in COCO format: dicts with ``image_id``, ``category_id``, ``bbox`` ``[x, y, w, h]`` in
            pixels and ``score`` from 0 to 1. They stay as they are.
        iou: IoU of a match, larger than 0.1 and at most 1.

    Raises:
        ValueError: An id occurs twice or is unknown, a box has other than four finite numbers, or a score or ``iou`` is
            out of range.
        ImportError: faster-coco-eval is not installed.
    """
    if not 0.1 < iou <= 1:
        raise ValueError(f'iou must be larger than 0.1, the limit of the background, and at most 1, got {iou}')
    d = read_detections(truth, predictions)
    evaluation = CocoEvaluation(d)
    table, ap, ap50 = evaluation.table()
    matched, precision, score = evaluation.matches(iou)
    objects = d.count_objects()
    counts = (matched < 0) | ~np.append(d.object_crowd, False)[matched]
    correct = counts & (matched >= 0)
    classes = []
    for label, name in enumerate(d.classes):
        own = counts & (d.label == label)
        exists = bool(objects[label])
        classes.append(
            DetectedClass(
                name=name,
                category_id=d.category_ids[label],
                objects=int(objects[label]),
                predictions=int((d.label == label).sum()),
                AP=float(ap[label]) if exists else None,
                AP50=float(ap50[label]) if exists else None,
                threshold=best_threshold(d.score[own], correct[own], int(objects[label])),
                curve=PrecisionRecallCurve(RECALLS, precision[label], score[label]) if exists else None,
            )
        )
    threshold = best_threshold(d.score[counts], correct[counts], int(objects.sum()))
    lowest = 0.0 if threshold is None else threshold.score
    found = np.zeros(len(d.object_box), dtype=bool)
    found[matched[correct & (d.score >= lowest)]] = True
    overlaps = find_overlaps(d)
    kinds = classify_errors(matched, overlaps, iou)
    return DetectionStatistics(
        iou=iou,
        images=len(d.image_ids),
        objects=int(objects.sum()),
        crowds=int(d.object_crowd.sum()),
        predictions=len(d.score),
        table=table,
        classes=tuple(classes),
        threshold=threshold,
        confusion=_confusion(d, evaluation, iou, lowest),
        errors=count_errors(d, matched, kinds, overlaps, lowest),
        false_positives=worst_false_positives(d, kinds, overlaps),
        false_negatives=worst_false_negatives(d, matched, found, iou),
        breakdown=break_down(d, overlaps, matched, lowest),
        calibration=calibration(d.score[counts], correct[counts], LOWEST_CALIBRATED_SCORE),
    )


def _confusion(d: DetectionArrays, evaluation: CocoEvaluation, iou: float, threshold: float) -> ConfusionMatrix:
    """Match predictions with objects one to one, by descending score and irrespective of class."""
    background = len(d.classes)
    matched = evaluation.matches_of_any_class(iou, threshold)
    labels = d.label[: len(matched)]
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    right = (matched >= 0) & ~np.append(d.object_crowd, True)[matched]
    np.add.at(counts, (d.object_label[matched[right]], labels[right]), 1)
    counts[background] = np.bincount(labels[matched < 0], minlength=background + 1)
    missed = ~d.object_crowd
    missed[matched[right]] = False
    counts[:, background] = np.bincount(d.object_label[missed], minlength=background + 1)
    return ConfusionMatrix(threshold, (*d.classes, 'background'), counts)
