"""Differences of the predictions of two variants of one network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_CONFIDENT = 0.3  # score from which the boxes are compared: the order of weaker boxes is chance


@dataclass(frozen=True)
class Difference:
    """Largest differences.

    Attributes:
        scores: Of the scores, in descending order for a detector, from 0 to 1; infinite if one is not finite.
        boxes: Of the coordinates of a box to the nearest one of the same class, in pixels, among the boxes whose score
            is at least 0.3; None without such a box.
    """

    scores: float
    boxes: float | None = None


def compare_predictions(expected: Sequence[Any], actual: Sequence[Any]) -> Difference:
    """Compare the samples that ``test_step`` returned.

    Args:
        expected: Samples of MMDetection or MMPreTrain.
        actual: Those of the other variant, of the same images.
    """
    scores, boxes = [0.0], []
    for one, other in zip(expected, actual, strict=True):
        if 'pred_instances' not in one:
            scores.append(_largest(one.pred_score, other.pred_score))
            continue
        found, kept = one.pred_instances, other.pred_instances
        count = max(len(found), len(kept))
        padded = [_descending(instances.scores, count) for instances in (found, kept)]
        scores.append(_largest(*padded))
        for label, score, box in zip(found.labels, found.scores, found.bboxes, strict=True):
            if score >= _CONFIDENT:
                same = kept.bboxes[kept.labels == label].float()
                boxes.append((same - box.float()).abs().amax(1).min().item() if len(same) else float('inf'))
    return Difference(max(scores), max(boxes) if boxes else None)


def _descending(scores: torch.Tensor, count: int) -> torch.Tensor:
    return torch.nn.functional.pad(scores.float().sort(descending=True).values, (0, count - len(scores)))


def _largest(one: torch.Tensor, other: torch.Tensor) -> float:
    if not (one.isfinite().all() and other.isfinite().all()):
        return float('inf')
    return (one.float() - other.float()).abs().max().item() if one.numel() else 0.0
