"""Whether a score is the probability of being right."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions with similar scores.

    Attributes:
        lowest: Lower end of the scores, included.
        highest: Upper end, included in the last bin only.
        count: Number of predictions.
        score: Their mean score; None without a prediction.
        accuracy: The share of them that is right; None without a prediction.
    """

    lowest: float
    highest: float
    count: int
    score: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Scores against the share of right predictions.

    Attributes:
        lowest: Smallest score that was considered.
        bins: Bins of equal width.
        error: Expected calibration error: the mean of abs(accuracy - score) over the bins, weighted by their counts. 0
            is perfect. None without a prediction.
    """

    lowest: float
    bins: tuple[ReliabilityBin, ...]
    error: float | None


def calibration(score: np.ndarray, correct: np.ndarray, lowest: float = 0.0, bins: int = 10) -> Calibration:
    """Compute the reliability diagram and the expected calibration error.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017, arXiv 1706.04599), section 2; for detectors,
    Küppers et al., Multivariate Confidence Calibration for Object Detection (2020, arXiv 2004.13546).

    Args:
        score: Scores from 0 to 1, (P,).
        correct: The prediction is right, (P,) bool.
        lowest: Predictions with smaller scores do not count.
        bins: Number of bins from ``lowest`` to 1.
    """
    used = score >= lowest
    score, correct = score[used], correct[used]
    edges = np.linspace(lowest, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, score, side='right') - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    scores, hits = (np.bincount(place, weights=values, minlength=bins) for values in (score, correct))
    return Calibration(
        lowest=lowest,
        bins=tuple(
            ReliabilityBin(
                float(edges[one]),
                float(edges[one + 1]),
                int(count[one]),
                float(scores[one] / count[one]) if count[one] else None,
                float(hits[one] / count[one]) if count[one] else None,
            )
            for one in range(bins)
        ),
        error=float(np.abs(hits - scores).sum() / len(score)) if len(score) else None,
    )
