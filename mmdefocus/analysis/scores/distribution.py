"""Scores of single rows of attention: how a query distributes its attention over the tokens that it sees.

Shapes: … any, L tokens. ``p`` (…, L) is non-negative with sum 1 over the visible tokens and 0 elsewhere; ``visible``
(…) is the number n of visible tokens, at least 2, broadcast over the leading dimensions.
"""

import torch
from torch import Tensor


def entropy(p: Tensor, visible: Tensor) -> Tensor:
    """Return Shannon's entropy divided by its maximum, −Σ p log p / log n, (…): 1 for uniform rows, 0 for one token."""
    return torch.special.entr(p).sum(-1) / visible.to(p.dtype).log()


def top_mass(p: Tensor, visible: Tensor) -> Tensor:
    """Return the mass of the top 1 %: the sum of the ⌈n / 100⌉ largest entries, (…), from ⌈n / 100⌉ / n to 1."""
    counts = (visible + 99) // 100
    largest = p.topk(int(counts.max())).values
    chosen = torch.arange(largest.shape[-1], device=p.device) < counts[..., None]
    return (largest * chosen).sum(-1)


def gini(p: Tensor, visible: Tensor) -> Tensor:
    """Return the Gini index, 1 − 2 Σ_k p_(k) (n − k + ½) / n with ascending p_(1), p_(2), …, (…).

    Source: Hurley and Rickard, Comparing Measures of Sparsity, IEEE Transactions on Information Theory 55 (2009). It is
    0 for uniform rows and 1 − 1 / n for one token.
    """
    # Tokens that are not visible sort first as zeros, and n − k counts from the end: they change nothing.
    behind = torch.arange(p.shape[-1] - 1, -1, -1, device=p.device, dtype=p.dtype)
    return 1 - 2 * (p.sort(-1).values * (behind + 0.5)).sum(-1) / visible
