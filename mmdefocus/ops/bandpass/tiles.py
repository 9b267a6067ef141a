"""Logits of queries and keys with a decay per channel, tile by tile, and their gradients.

With rotated queries and keys, a logit is

    logit(t, s) = sum over c of q_{t,c} k_{s,c} f_c(t - s),    f_c(n) = exp(-λ_c |n|).

For tokens s < b ≤ t on two sides of a boundary b, f(t - s) = f(t - b) f(b - s): scaled by the factors of their
distances to the boundary, the tokens give a whole tile of logits by one matrix product. No factor exceeds 1, and one
underflows only if the product does, too; a single reference token for all keys, as in linear attention without a
decay, would need factors exp(λ n) that overflow. Inside a block of tokens, the boundary is the middle of the block, and
recursively that of each half.

A table of factors is (H, 2 n + 1, d) for the signed distances -n … n to the boundary. All tensors are contiguous, and
float32 or float64.

Shapes: B batch, H heads, G blocks, C tokens of a block, L tokens, d channels of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def decay_factors(decay: Tensor, max_distance: int) -> Tensor:
    """Return exp(-λ |n|) for n = -max_distance … max_distance.

    Args:
        decay: λ ≥ 0 per token, infinity included, (H, d), float32 or float64.
        max_distance: Largest distance.

    Returns:
        (H, 2 max_distance + 1, d); 1 at distance 0.
    """
    distance = _distances(decay, max_distance)
    # The product would be NaN at distance 0 for an infinite decay.
    return torch.exp(-torch.where(distance == 0, 0.0, decay[:, None] * distance))


def decay_factors_backward(grad: Tensor, factors: Tensor) -> Tensor:
    """Return the gradient of decay (H, d), given that of the factors."""
    return -(_distances(factors, factors.shape[1] // 2) * grad * factors).sum(1)


def scale_by_distance(x: Tensor, factors: Tensor, first: int) -> Tensor:
    """Scale tokens (…, n, d) by the factors (…, ·, d) of the signed distances ``first``, ``first`` + 1, …."""
    return x * _slice(factors, first, x.shape[-2])


def tile_logits(later: Tensor, earlier: Tensor, factors: Tensor) -> Tensor:
    """Return the logits (…, m, n) of tokens (…, m, d) and the tokens (…, n, d) directly before them."""
    return scale_by_distance(later, factors, 0) @ scale_by_distance(earlier, factors, -earlier.shape[-2]).mT


def tile_logits_backward(
    grad: Tensor, later: Tensor, earlier: Tensor, factors: Tensor, grad_factors: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``later`` and ``earlier`` in :func:`tile_logits`; add that of factors to grad_factors."""
    first = -earlier.shape[-2]
    grad_later = grad @ scale_by_distance(earlier, factors, first)
    grad_earlier = grad.mT @ scale_by_distance(later, factors, 0)
    return (
        _scale_backward(grad_later, later, factors, grad_factors, 0),
        _scale_backward(grad_earlier, earlier, factors, grad_factors, first),
    )


def block_logits(q: Tensor, k: Tensor, self_logits: Tensor, factors: Tensor, causal: bool) -> Tensor:
    """Return the intra-block logits.

    Args:
        q, k: (B, H, G, C, d).
        self_logits: Logit of every token with itself, (B, H, G, C, 1).
        factors: Distances up to C / 2 or more.
        causal: Leave 0 where the key is later than the query.

    Returns:
        (B, H, G, C, C).
    """
    size, factors = q.shape[3], factors[:, None]
    q, k = (_pad_and_join_blocks(x) for x in (q, k))  # (B, H, L, d)
    logits = _pad_and_join_blocks(self_logits)[..., None]  # (B, H, L, 1, 1)
    half = 1
    while half < size:
        (early_q, late_q), (early_k, late_k) = _halves(q, half), _halves(k, half)
        below = tile_logits(late_q, early_k, factors)
        above = torch.zeros_like(below) if causal else tile_logits(late_k, early_q, factors).mT
        first, second = logits.unflatten(2, (-1, 2)).unbind(3)
        logits = torch.cat((torch.cat((first, above), -1), torch.cat((below, second), -1)), -2)
        half *= 2
    return logits[..., :size, :size].contiguous()


def block_logits_backward(
    grad: Tensor, q: Tensor, k: Tensor, factors: Tensor, grad_factors: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and self_logits in :func:`block_logits`; add that of factors to ``grad_factors``."""
    blocks, size = q.shape[2:4]
    q, k = (_pad_and_join_blocks(x) for x in (q, k))
    padded = q.shape[2] // blocks
    factors, grad_factors = factors[:, None], grad_factors[:, None]
    grad_q, grad_k = torch.zeros_like(q), torch.zeros_like(k)
    grad = F.pad(grad, (0, padded - size, 0, padded - size))
    half = padded // 2
    while half > 0:  # grad is (B, H, L / (2 half), 2 half, 2 half)
        (early_q, late_q), (early_k, late_k) = _halves(q, half), _halves(k, half)
        (grad_early_q, grad_late_q), (grad_early_k, grad_late_k) = _halves(grad_q, half), _halves(grad_k, half)
        tiles = [(grad[..., half:, :half], late_q, early_k, grad_late_q, grad_early_k)]
        if not causal:
            tiles.append((grad[..., :half, half:].mT, late_k, early_q, grad_late_k, grad_early_q))
        for grad_tile, later, earlier, grad_later, grad_earlier in tiles:
            more_later, more_earlier = tile_logits_backward(grad_tile, later, earlier, factors, grad_factors)
            grad_later += more_later
            grad_earlier += more_earlier
        grad = torch.stack((grad[..., :half, :half], grad[..., half:, half:]), 3).flatten(2, 3)
        half //= 2
    grad_q, grad_k, grad_self = (
        x.unflatten(2, (blocks, padded))[:, :, :, :size].contiguous() for x in (grad_q, grad_k, grad[..., 0])
    )
    return grad_q, grad_k, grad_self


def _distances(like: Tensor, max_distance: int) -> Tensor:
    return torch.arange(-max_distance, max_distance + 1, device=like.device, dtype=like.dtype).abs()[:, None]


def _scale_backward(grad: Tensor, x: Tensor, factors: Tensor, grad_factors: Tensor, first: int) -> Tensor:
    grad_slice = _slice(grad_factors, first, x.shape[-2])
    grad_slice += (grad * x).sum_to_size(grad_slice.shape)
    return scale_by_distance(grad, factors, first)


def _slice(factors: Tensor, first: int, count: int) -> Tensor:
    start = factors.shape[-2] // 2 + first
    return factors[..., start : start + count, :]


def _pad_and_join_blocks(x: Tensor) -> Tensor:
    """(B, H, G, C, d) to (B, H, G C', d), with C' the next power of two."""
    size = x.shape[3]
    return F.pad(x, (0, 0, 0, (1 << (size - 1).bit_length()) - size)).flatten(2, 3)


def _halves(x: Tensor, half: int) -> tuple[Tensor, ...]:
    """Return views of the first and of the second halves of blocks of 2 half tokens, each (B, H, G, half, d)."""
    return x.unflatten(2, (-1, 2, half)).unbind(3)
