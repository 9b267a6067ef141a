"""Why predictions are wrong, and what each kind of error costs.

Shapes:
    C classes, G true objects, P predictions.
"""

from dataclasses import dataclass

import numpy as np

from .average_precision import mean_average_precision
from .detection_arrays import DetectionArrays
from .overlaps import Overlaps

# The kinds of a wrong prediction; their positions + 1 are the values of `classify_errors`.
KINDS = ('classification', 'localisation', 'both', 'duplicate', 'background')


@dataclass(frozen=True)
class ErrorType:
    """One kind of error.

    Attributes:
        name: ``classification``, ``localisation``, ``both``, ``duplicate``, ``background`` or ``missed``; or all
            ``false positives`` or all ``false negatives``.
        count: Number of errors among the predictions from the best common threshold on.
        count_all: Number among all predictions, whatever their score.
        delta_ap: By how much AP at the IoU of a match rises if all errors of this kind are corrected and nothing else.
    """

    name: str
    count: int
    count_all: int
    delta_ap: float | None


def classify_errors(matched: np.ndarray, overlaps: Overlaps, iou: float, background: float = 0.1) -> np.ndarray:
    """Say why every wrong prediction is wrong, after TIDE (Bolya et al. 2020, arXiv 2008.08115, section 2.2).

    - localisation: IoU with an object of its class is at least ``background`` and smaller than ``iou``;
    - else classification: IoU with an object of another class is at least ``iou``;
    - else duplicate: IoU with an object of its class is at least ``iou``, and a prediction with a higher score has it;
    - else background: no IoU is larger than ``background``;
    - else both: wrong class and a bad box.

    Args:
        matched: Matched object of every prediction, also a crowd, -1 without one, (P,) int.
        overlaps: Overlaps of the predictions.
        iou: IoU of a match.
        background: IoU up to which a prediction has nothing to do with an object.

    Returns:
        0 for right and ignored predictions, else the position in ``KINDS`` + 1, (P,) int.
    """
    same, other = overlaps.same_iou, overlaps.other_iou
    return np.select(
        [
            matched >= 0,
            (same >= background) & (same < iou),
            other >= iou,
            same >= iou,
            np.maximum(same, other) <= background,
        ],
        [0, 2, 1, 4, 5],
        default=3,
    )


def count_errors(
    detections: DetectionArrays, matched: np.ndarray, kinds: np.ndarray, overlaps: Overlaps, threshold: float
) -> tuple[ErrorType, ...]:
    """Count the errors of every kind, and compute what the correction of each kind would bring.

    As in TIDE: a wrong class or box is corrected for the best prediction of an object that has none yet; the others,
    as all duplicate, background and both errors, are removed. ``missed`` are objects without a match that no
    correction of class or box would give one; they are removed from the number of objects. For ``false positives``, all
    wrong predictions get the lowest score; for ``false negatives``, all objects without a match are removed. A class
    whose objects are all removed counts as 1. A difference below 0 counts as 0.
    """
    # The object that a correction of class or box would give to the prediction.
    target = np.select([kinds == 1, kinds == 2], [overlaps.other_object, overlaps.same_object], -1)
    # Matches do not depend on predictions with lower scores.
    shown = slice(int((detections.score >= threshold).sum()))
    counts = _counts(detections.object_crowd, matched, kinds, target)
    shown_counts = _counts(detections.object_crowd, matched[shown], kinds[shown], target[shown])
    gains = _gains(detections, matched, kinds, target) if not detections.object_crowd.all() else {}
    return tuple(ErrorType(name, shown_counts[name], counts[name], gains.get(name)) for name in counts)


def _unmatched(crowd: np.ndarray, matched: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether objects are without a match, and whether no correction would give them one, (G,) bool each."""
    unmatched = ~crowd
    unmatched[matched[matched >= 0]] = False
    missed = unmatched.copy()
    missed[target[target >= 0]] = False
    return unmatched, missed


def _counts(crowd: np.ndarray, matched: np.ndarray, kinds: np.ndarray, target: np.ndarray) -> dict[str, int]:
    unmatched, missed = _unmatched(crowd, matched, target)
    counts = {name: int((kinds == number).sum()) for number, name in enumerate(KINDS, start=1)}
    return counts | {
        'missed': int(missed.sum()),
        'false positives': int((kinds > 0).sum()),
        'false negatives': int(unmatched.sum()),
    }


def _gains(detections: DetectionArrays, matched: np.ndarray, kinds: np.ndarray, target: np.ndarray) -> dict[str, float]:
    objects = detections.count_objects()
    unmatched, missed = _unmatched(detections.object_crowd, matched, target)
    used = np.flatnonzero((matched < 0) | ~np.append(detections.object_crowd, False)[matched])
    label, score, correct = detections.label[used], detections.score[used], matched[used] >= 0
    kinds, target = kinds[used], target[used]
    now = mean_average_precision(label, score, correct, objects)
    fixed = {'false positives': mean_average_precision(label, correct * 1.0, correct, objects)}
    for number, name in enumerate(KINDS, start=1):
        best = np.zeros(len(used), dtype=bool)
        if name in ('classification', 'localisation'):
            rows = np.flatnonzero((kinds == number) & np.append(unmatched, False)[target])
            best[rows[np.unique(target[rows], return_index=True)[1]]] = True
        new_label = label.copy()
        new_label[best] = detections.object_label[target[best]]
        kept = (kinds != number) | best
        fixed[name] = mean_average_precision(new_label[kept], score[kept], (correct | best)[kept], objects)
    for name, removed in (('missed', missed), ('false negatives', unmatched)):
        left = objects - np.bincount(detections.object_label[removed], minlength=len(objects))
        fixed[name] = mean_average_precision(label, score, correct, objects, left)
    return {name: max(value - now, 0.0) for name, value in fixed.items()}
