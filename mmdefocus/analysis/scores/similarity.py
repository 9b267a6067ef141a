"""Scores that compare rows of attention: of different queries, and of different heads.

Shapes: B images, K heads, Q queries, L tokens.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def query_irrelevance(rows: Tensor, queries: Tensor, causal: bool) -> Tensor:
    """Return the mean cosine between the rows of different queries, (B, K).

    The first claim of Ma et al. (A Close Look at Spatial Modeling, 2022): attention hardly depends on the query. With
    causality, the rows of two queries are compared on the tokens that both see; a row without attention there has the
    cosine 0. Short common parts make large cosines: uniform attention has 1, random attention far more than 0.

    Args:
        rows: Rows of the queries, non-negative (B, K, Q, L).
        queries: Their positions in ascending order (Q).
        causal: Whether a query sees only itself and earlier tokens.
    """
    products = rows @ rows.mT  # row i is 0 after token i, which cuts the product to the common tokens
    norms = rows.norm(dim=-1)[..., None].expand_as(products)  # of row i, on the tokens that query j sees
    if causal:  # head by head: as large as all rows
        norms = torch.stack([head.square().cumsum(-1)[..., queries].sqrt() for head in rows.unbind(1)], dim=1)
    norms = norms * norms.diagonal(dim1=-2, dim2=-1)[..., None, :]
    cosines = torch.where(norms > 0, products / norms, 0)
    later, earlier = torch.tril_indices(len(queries), len(queries), -1, device=rows.device)
    return cosines[..., later, earlier].mean(-1)


def head_irrelevance(rows: Tensor) -> Tensor:
    """Return the mean cosine between a head's row and the other heads' rows of the same query, (B, K, Q).

    NaN for a single head. Source: Ma et al., A Close Look at Spatial Modeling (2022).

    Args:
        rows: Rows of all heads, non-negative (B, K, Q, L).
    """
    others = rows.shape[1] - 1
    if not others:
        return rows.new_full(rows.shape[:3], torch.nan)
    units = normalize(rows, dim=-1, eps=torch.finfo(rows.dtype).tiny)
    return (units * (units.sum(1, keepdim=True) - units)).sum(-1) / others


def diversity(unit_sum: Tensor, unit_rows: Tensor, length: int) -> Tensor:
    """Return one minus the mean cosine between the whole rows of different tokens, (…).

    The similarity that the Attention Diversification Loss penalises (Guo et al., Robustifying Token Attention for
    Vision Transformers, ICCV 2023). With causality, rows of different lengths differ: uniform causal attention has
    about 1/3, not 0.

    Args:
        unit_sum: Sum of all rows, each divided by its Euclidean norm, (…, L).
        unit_rows: Number of these unit rows: of the rows that are not 0, (…).
        length: L, the number of rows.
    """
    pairs = unit_sum.square().sum(-1) - unit_rows
    return 1 - pairs / (length * (length - 1)) if length > 1 else torch.full_like(pairs, torch.nan)
