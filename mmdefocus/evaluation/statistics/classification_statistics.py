"""All numbers of the report of a classifier.

Shapes:
    N images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, top_k_accuracy_score

from .calibration import Calibration, calibration
from .json_values import json_values


@dataclass(frozen=True)
class ClassifiedClass:
    """How well one class is recognised.

    Attributes:
        name: Name of the class.
        images: Number of images of this class (support).
        predictions: Number of images that are taken for this class.
        precision: Share of these that are right; None without a prediction.
        recall: Share of its images that are recognised; None without an image.
        f1: 2 · precision · recall / (precision + recall), 0 if none is right; None without an image.
    """

    name: str
    images: int
    predictions: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class ClassifiedImage:
    """One image and its prediction.

    Attributes:
        path: Path as it was given.
        truth: Name of its class.
        prediction: Name of the class with the highest score.
        score: That score.
        truth_score: The score of its class.
    """

    path: str
    truth: str
    prediction: str
    score: float
    truth_score: float


@dataclass(frozen=True)
class ClassificationStatistics:
    """The numbers of the report of a classifier.

    Attributes:
        images: Number of images.
        top1: Share of the images whose class has the highest score.
        top5: Share whose class is among the five highest scores; None with five classes or fewer, where it is 1.
        classes: The classes in the order of the labels.
        confusion: Row: class of the image, column: class with the highest score, (C, C) int64.
        labels: Names of its rows and columns, C.
        calibration: Highest scores against the share of right predictions.
        worst_mistakes: Wrong predictions, the highest score first.
        least_confident_hits: Right predictions, the lowest score first.
    """

    images: int
    top1: float
    top5: float | None
    classes: tuple[ClassifiedClass, ...]
    confusion: np.ndarray
    labels: tuple[str, ...]
    calibration: Calibration
    worst_mistakes: tuple[ClassifiedImage, ...]
    least_confident_hits: tuple[ClassifiedImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON has them."""
        return json_values(self)


def analyse_classification(
    scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], paths: Sequence[str], number: int = 24
) -> ClassificationStatistics:
    """Compute the numbers of the report of a classifier, with scikit-learn's metrics.

    Args:
        scores: Probabilities of the classes, (N, C) float.
        labels: Positions of the true classes, (N,) int.
        classes: Names of the classes, C.
        paths: Paths of the images, N.
        number: Largest number of mistakes and of hits that are returned.

    Raises:
        ValueError: There is no image, the shapes contradict each other, a score is not between 0 and 1, or a label is
            not a class.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _check(scores, labels, classes, paths)
    every = np.arange(len(classes))
    found = scores.argmax(axis=1)
    best, of_truth = scores.max(axis=1), scores[np.arange(len(labels)), labels]
    precision, recall, f1, support = precision_recall_fscore_support(labels, found, labels=every, zero_division=np.nan)
    predictions = np.bincount(found, minlength=len(classes))
    right = found == labels

    def images_of(rows: np.ndarray) -> tuple[ClassifiedImage, ...]:
        return tuple(
            ClassifiedImage(
                str(paths[row]), classes[labels[row]], classes[found[row]], float(best[row]), float(of_truth[row])
            )
            for row in rows[:number].tolist()
        )

    rows = np.argsort(best, kind='stable')
    return ClassificationStatistics(
        images=len(labels),
        top1=float(right.mean()),
        top5=float(top_k_accuracy_score(labels, scores, k=5, labels=every)) if len(every) > 5 else None,
        classes=tuple(
            ClassifiedClass(
                name=name,
                images=int(support[one]),
                predictions=int(predictions[one]),
                precision=float(precision[one]) if predictions[one] else None,
                recall=float(recall[one]) if support[one] else None,
                f1=float(f1[one]) if support[one] else None,
            )
            for one, name in enumerate(classes)
        ),
        confusion=confusion_matrix(labels, found, labels=every),
        labels=tuple(classes),
        calibration=calibration(best, right),
        worst_mistakes=images_of(rows[::-1][~right[rows[::-1]]]),
        least_confident_hits=images_of(rows[right[rows]]),
    )


def _check(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], paths: Sequence[str]) -> None:
    if not len(labels):
        raise ValueError('the statistics of a classifier need at least one image, got none')
    expected = (len(labels), len(classes))
    if scores.shape != expected or len(paths) != len(labels):
        raise ValueError(
            f'expected scores of {expected[0]} labelled images and {expected[1]} classes, (N, C) = {expected}, and as '
            f'many paths, got scores of shape {scores.shape} and {len(paths)} paths'
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f'scores must be probabilities between 0 and 1, got values from {scores.min()} to {scores.max()}; apply '
            'softmax to logits'
        )
    if not np.issubdtype(labels.dtype, np.integer) or not ((labels >= 0) & (labels < len(classes))).all():
        raise ValueError(f'labels must be whole numbers from 0 to {len(classes) - 1}, got {labels.dtype} {labels}')
