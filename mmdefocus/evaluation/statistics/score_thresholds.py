"""The score from which on predictions are worth showing."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BestThreshold:
    """The score threshold with the largest F1, and what it gives.

    Attributes:
        score: Predictions with this score or a higher one are shown.
        precision: Share of them that is right.
        recall: Share of the objects that they find.
        f1: 2 · precision · recall / (precision + recall).
    """

    score: float
    precision: float
    recall: float
    f1: float


def best_threshold(score: np.ndarray, correct: np.ndarray, objects: int) -> BestThreshold | None:
    """Find the score threshold with the largest F1 among all scores that occur; of equal ones, the highest.

    F1 is the harmonic mean of precision and recall (van Rijsbergen, Information Retrieval, 1979).

    Args:
        score: Scores in descending order, (P,).
        correct: The prediction is right, (P,) bool.
        objects: Number of true objects.

    Returns:
        The threshold; None if no prediction is right.
    """
    if not correct.any() or not objects:
        return None
    # A threshold cannot separate equal scores: only the last of them is one.
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    hits = np.cumsum(correct)[ends]
    f1 = 2 * hits / (ends + 1 + objects)
    best = int(f1.argmax())
    shown = int(ends[best]) + 1
    return BestThreshold(
        score=float(score[ends[best]]),
        precision=float(hits[best] / shown),
        recall=float(hits[best] / objects),
        f1=float(f1[best]),
    )
