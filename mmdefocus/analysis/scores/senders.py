"""Scores of the columns of attention: how much tokens are attended to.

Shapes: … any, L tokens. ``columns`` (…, L) is the sum Σ_i p_ik of normalised attention that token k gets.
"""

import torch
from torch import Tensor

from .distribution import gini

SINK_THRESHOLD = 0.3


def find_sinks(columns: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Find the token with the largest average attention.

    The average of token k is over the N_k queries that see it: α_k = Σ_i p_ik / N_k with N_k = L − k if causal, else L
    (importance score of Gu et al., arXiv 2410.10781, section 3, who report it for every position k; a head has a sink
    at k if α_k > 0.3). The last tokens of a causal sequence are averaged over few queries, of which one is the token
    itself: with any local attention, they would all be sinks. Here, a token is eligible only if at least a quarter of
    the queries see it.

    Args:
        columns: Column sums (…, L).
        causal: Whether a query sees only itself and earlier tokens.

    Returns:
        Strength α and position of the strongest eligible token, both (…).
    """
    length = columns.shape[-1]
    queries = torch.full((length,), length, device=columns.device)
    if causal:
        queries = torch.arange(length, 0, -1, device=columns.device)
    means = (columns / queries).masked_fill(4 * queries < length, -1.0)
    strength, position = means.max(-1)
    return strength, position


def sender_dominance(columns: Tensor) -> Tensor:
    """Return the Gini index of the column sums, (…).

    DependencyViT (arXiv 2304.03282) reads the column sums as the information that tokens send. With causality, early
    tokens have more receivers: uniform causal attention has a dominance near 0.5, not 0.
    """
    share = columns / columns.sum(-1, keepdim=True)
    return gini(share, torch.tensor(columns.shape[-1], device=columns.device))
