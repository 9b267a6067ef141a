"""Scores of tokens and their gradients.

Shapes: B images, n image tokens.
"""

import math

import torch
from torch import Tensor

OUTLIER_MADS = 6


def norm_outliers(norms: Tensor) -> Tensor:
    """Return the share of tokens whose norm exceeds the median by more than 6 median absolute deviations, (B).

    High-norm tokens in plain background are the artefacts of vision Mamba (Mamba®, arXiv 2405.14858). The deviation is
    the plain median of |‖x‖ − median|, without the factor 1.48 of normal distributions.

    Args:
        norms: Norms of the tokens (B, n).
    """
    median = norms.quantile(0.5, dim=-1, keepdim=True)
    deviation = (norms - median).abs().quantile(0.5, dim=-1, keepdim=True)
    return (norms > median + OUTLIER_MADS * deviation).to(norms.dtype).mean(-1)


def gradient_evenness(gradients: Tensor) -> Tensor:
    """Return the entropy of a gradient map divided by its maximum, −Σ q log q / log n with q = g / Σ g, (B).

    The gradient maps are those of figures 1 and 3 of De-focus Attention Networks (arXiv 2406.04342). NaN if all
    gradients are 0, and for a single token.

    Args:
        gradients: Norms of the gradients with respect to the tokens (B, n).
    """
    q = gradients / gradients.sum(-1, keepdim=True)
    limit = math.log(gradients.shape[-1]) or math.nan
    return torch.special.entr(q).sum(-1) / limit
