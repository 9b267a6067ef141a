"""Attention rollout: attention maps multiplied over the layers.

Shapes: B batch, K maps of a layer, L tokens.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .errors import AnalysisError

MAX_TOKENS = 1024  # for callers that roll out all layers: the maps of a layer then need 4 MiB


def rollout(maps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Roll attention out over layers (Abnar and Zuidema 2020, arXiv 2005.00928, eq. 1).

    R_l = P_l R_{l-1} with P_l = rownorm(mean over K of abs(A_l) + I), in ascending order of the given layers, from
    R = I. The identity stands for the residual connection, and rownorm divides a row by its sum. The paper's maps are
    attention weights; those with signs enter with their absolute values.

    Args:
        maps: Maps (B, K, L, L) by number of the layer, as of :func:`~mmdefocus.analysis.attention_maps`.

    Returns:
        By number of the layer R_l, (B, L, L), whose rows are not negative and sum to 1.

    Raises:
        AnalysisError: The maps are not square, or differ in their numbers of images or tokens.
    """
    rolled: Tensor | None = None
    result = {}
    for layer in sorted(maps):
        weights = maps[layer].abs().mean(1)  # (B, L, L)
        expected = (weights.shape[0], weights.shape[2], weights.shape[2]) if rolled is None else rolled.shape
        if weights.shape != expected:
            raise AnalysisError(
                f'layer {layer}: a rollout needs all rows of the maps and the same tokens in all layers; expected '
                f'(B, K, L, L) with (B, L, L) = {tuple(expected)}, got {tuple(maps[layer].shape)}'
            )
        weights = weights + torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        weights = weights / weights.sum(-1, keepdim=True)
        rolled = weights if rolled is None else weights @ rolled
        result[layer] = rolled
    return result
