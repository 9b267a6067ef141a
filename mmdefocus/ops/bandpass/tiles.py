"""Band-passed logits tile by tile, and their gradients: the arithmetic inside the operators of :mod:`.bandpass`.

Channel pair j of a head is one complex number, q_j = q_{2j} + i q_{2j+1}, and

    logit(t, s) = Re sum over j of q_{t,j} conj(k_{s,j}) f_j(t - s),    f_j(n) = exp(-λ_j |n| + i θ_j n).

For tokens s < b ≤ t on two sides of a boundary b, f(t - s) = f(t - b) conj(f(s - b)): with every token multiplied by
the factor of its signed distance to the boundary, the tile of logits is one matrix product. No factor is larger than
1, and one underflows only where the product does, too. The tokens of one block are on two sides of the boundary in
its middle, those of its halves on two sides of theirs, and so on.

Factors are (…, n, P, 2): real and imaginary parts for the distances -(n - 1) / 2 … (n - 1) / 2. Everything is
contiguous, and float32 or float64.

Legend: B batch, H heads, G blocks, C tokens of a block, L tokens, d channels of a head, P = d / 2 pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def turn(x: Tensor, factors: Tensor, first: int) -> Tensor:
    """Multiplies tokens (…, n, d) by the factors of the distances ``first``, ``first`` + 1, …."""
    return _real(_complex(x) * _of_distances(factors, first, x.shape[-2]))


def turn_backward(grad: Tensor, x: Tensor, factors: Tensor, grad_factors: Tensor, first: int) -> Tensor:
    """The gradient of ``x`` in :func:`turn`; that of ``factors`` is added to ``grad_factors``."""
    # Not conj(), which only sets a flag: it is lost when an operator runs while torch traces a graph (torch 2.11).
    pairs, part = _complex(grad), _of_distances(grad_factors, first, x.shape[-2])
    part += (pairs * _complex(x).conj_physical()).sum_to_size(part.shape)
    return _real(pairs * _of_distances(factors, first, x.shape[-2]).conj_physical())


def tile_logits(later: Tensor, earlier: Tensor, factors: Tensor) -> Tensor:
    """Logits between tokens (…, m, d) and the tokens (…, n, d) directly before them, (…, m, n)."""
    return turn(later, factors, 0) @ turn(earlier, factors, -earlier.shape[-2]).mT


def tile_logits_backward(
    grad: Tensor, later: Tensor, earlier: Tensor, factors: Tensor, grad_factors: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of both groups of tokens in :func:`tile_logits`; that of ``factors`` is added to ``grad_factors``."""
    first = -earlier.shape[-2]
    grad_later = grad @ turn(earlier, factors, first)
    grad_earlier = grad.mT @ turn(later, factors, 0)
    return (
        turn_backward(grad_later, later, factors, grad_factors, 0),
        turn_backward(grad_earlier, earlier, factors, grad_factors, first),
    )


def block_logits(q: Tensor, k: Tensor, factors: Tensor, causal: bool) -> Tensor:
    """Logits inside blocks of tokens.

    Args:
        q, k: (B, H, G, C, d).
        factors: (H, n, P, 2), n ≥ C.
        causal: leaves 0 where the key is later than the query.

    Returns:
        (B, H, G, C, C).
    """
    size = q.shape[3]
    q, k = (_pad_and_join_blocks(x) for x in (q, k))  # (B, H, L, d)
    factors = factors[:, None]
    logits = (q * k).sum(-1)[..., None, None]  # (B, H, L, 1, 1), every token with itself
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
) -> tuple[Tensor, Tensor]:
    """Gradients of q and k in :func:`block_logits`; that of ``factors`` is added to ``grad_factors``."""
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
    grad_q += grad[..., 0] * k
    grad_k += grad[..., 0] * q
    grad_q, grad_k = (x.unflatten(2, (blocks, padded))[:, :, :, :size].contiguous() for x in (grad_q, grad_k))
    return grad_q, grad_k


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x).flatten(-2)


def _of_distances(factors: Tensor, first: int, count: int) -> Tensor:
    start = factors.shape[-3] // 2 + first
    return torch.view_as_complex(factors[..., start : start + count, :, :])


def _pad_and_join_blocks(x: Tensor) -> Tensor:
    """(B, H, G, C, d) to (B, H, G C', d), with C' the next power of two."""
    size = x.shape[3]
    return F.pad(x, (0, 0, 0, (1 << (size - 1).bit_length()) - size)).flatten(2, 3)


def _halves(x: Tensor, half: int) -> tuple[Tensor, ...]:
    """Views of the first and of the second halves of blocks of 2 half tokens, each (B, H, G, half, d)."""
    return x.unflatten(2, (-1, 2, half)).unbind(3)
