"""The mistakes that are worth a look, with what is needed to draw them."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .detection_arrays import DetectionArrays
from .error_types import KINDS
from .overlaps import Overlaps, box_iou, by_image

Reason = Literal['score', 'class', 'localisation', 'both', 'taken', 'nothing']


@dataclass(frozen=True)
class DrawnBox:
    """A box in a picture.

    Attributes:
        category: Name of the class.
        box: ``(x, y, w, h)`` in pixels.
        score: Score of a prediction; None for a true object.
        iou: IoU with the box that it is compared with; None for that box itself.
    """

    category: str
    box: tuple[float, float, float, float]
    score: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class FalsePositive:
    """A wrong prediction.

    Attributes:
        image_id: Id of the image.
        file_name: File name of the image in the annotation file.
        error: Kind of the error, see ``ErrorType.name``.
        prediction: The prediction.
        truth: The object that it was taken for: of another class (classification), of its class (localisation and
            duplicate), or the one that it overlaps most; None without an overlap.
    """

    image_id: Any
    file_name: str
    error: str
    prediction: DrawnBox
    truth: DrawnBox | None


@dataclass(frozen=True)
class FalseNegative:
    """An object that is not found.

    Attributes:
        image_id: Id of the image.
        file_name: File name of the image in the annotation file.
        reason: Why the best-overlapping prediction does not count: ``score`` (it is right, but below the threshold),
            ``class`` (of another class), ``localisation`` (of this class, but the IoU is too small), ``both``,
            ``taken`` (it counts for another object), or ``nothing`` (no prediction has an IoU above 0.1).
        truth: The object.
        prediction: The best-overlapping prediction, whatever its class and score; None without an overlap. For the
            reason ``score``, the prediction that would count.
    """

    image_id: Any
    file_name: str
    reason: Reason
    truth: DrawnBox
    prediction: DrawnBox | None


def worst_false_positives(
    detections: DetectionArrays, kinds: np.ndarray, overlaps: Overlaps, number: int = 24
) -> tuple[FalsePositive, ...]:
    """Return the wrong predictions with the highest scores.

    Args:
        detections: Objects and predictions.
        kinds: Kinds of errors, from :func:`classify_errors`, (P,) int.
        overlaps: What the predictions overlap.
        number: Largest number of mistakes.
    """
    worst = []
    for one in np.flatnonzero(kinds)[:number]:
        error = KINDS[kinds[one] - 1]
        choices = [
            (overlaps.same_iou[one], overlaps.same_object[one]),
            (overlaps.other_iou[one], overlaps.other_object[one]),
        ]
        if error in ('localisation', 'duplicate'):
            iou, truth = choices[0]
        elif error == 'classification':
            iou, truth = choices[1]
        else:
            iou, truth = max(choices)
        worst.append(
            FalsePositive(
                *_image(detections, detections.image[one]),
                error,
                _prediction(detections, one),
                None if truth < 0 else _truth(detections, truth, float(iou)),
            )
        )
    return tuple(worst)


def worst_false_negatives(
    detections: DetectionArrays, matched: np.ndarray, found: np.ndarray, iou: float, number: int = 24
) -> tuple[FalseNegative, ...]:
    """Return the largest objects that are not found.

    Args:
        detections: Objects and predictions.
        matched: Matched object of every prediction, -1 without one, (P,) int.
        found: A prediction from the threshold on matches the object, (G,) bool.
        iou: IoU of a match.
        number: Largest number of mistakes.
    """
    d = detections
    lost = np.flatnonzero(~found & ~d.object_crowd)
    lost = lost[np.argsort(-d.object_area[lost], kind='stable')][:number]
    match_of = {an_object: prediction for prediction, an_object in enumerate(matched.tolist()) if an_object >= 0}
    images = set(d.object_image[lost].tolist())
    predictions_of = {image: rows for image, (_, rows) in enumerate(by_image(d)) if image in images}
    worst = []
    for one in lost.tolist():
        rows = predictions_of[int(d.object_image[one])]
        ious = box_iou(d.box[rows], d.object_box[[one]])[:, 0]
        best = int(rows[ious.argmax()]) if ious.any() else None
        reason: Reason = 'nothing' if best is None else _reason(d, one, best, ious.max(), matched, iou)
        if one in match_of:
            best, reason = match_of[one], 'score'
        prediction = None if best is None else _prediction(d, best, float(ious[rows == best][0]))
        worst.append(FalseNegative(*_image(d, d.object_image[one]), reason, _truth(d, one), prediction))
    return tuple(worst)


def _reason(
    detections: DetectionArrays, truth: int, prediction: int, overlap: float, matched: np.ndarray, iou: float
) -> Reason:
    if overlap <= 0.1:
        return 'nothing'
    if detections.label[prediction] != detections.object_label[truth]:
        return 'class' if overlap >= iou else 'both'
    return 'taken' if matched[prediction] >= 0 else 'localisation'


def _image(detections: DetectionArrays, image: int) -> tuple[Any, str]:
    return detections.image_ids[image], detections.file_names[image]


def _prediction(detections: DetectionArrays, one: int, iou: float | None = None) -> DrawnBox:
    d = detections
    return DrawnBox(d.classes[d.label[one]], tuple(d.box[one].tolist()), float(d.score[one]), iou)


def _truth(detections: DetectionArrays, one: int, iou: float | None = None) -> DrawnBox:
    d = detections
    return DrawnBox(d.classes[d.object_label[one]], tuple(d.object_box[one].tolist()), None, iou)
