"""Rows of the matrix that a selective scan applies to its input, without an L × L matrix per channel.

The scan h_t = exp(Δ_t A) h_{t-1} + Δ_t u_t B_t, y_t = ⟨C_t, h_t⟩ of a channel is y = α u (arXiv 2403.01590) with

    α_ij = sum over n of C_i,n exp(A_n · sum of Δ_k over k = j+1 … i) Δ_j B_j,n,    j ≤ i.

For tokens j < b ≤ i on two sides of a boundary b, the sum of Δ is that of b … i plus that of j+1 … b-1. Each side has
its own factor, and neither exceeds 1 (A ≤ 0), so nothing overflows. A tile of α is one matrix product of both factors
with the inner size N, and the mean of α over channels is one product with the inner size channels · N. Inside a block
of rows, the boundary is the middle of the block, and recursively that of each half. All sums start at the boundary:
there are no differences of long sums.

Shapes: B batch, L tokens, E channels, N state, M sets of weights, T rows, S tokens before them, K maps: E, or 1 for
their mean.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ScanMatrix(NamedTuple):
    """Factors of the matrices row_weight_i · α_ij · column_weights_j of channels, per channel.

    Attributes:
        delta: Step sizes Δ ≥ 0, (B, L, E), float32 or float64.
        b: B, (B, L, N).
        c: C, (B, L, N).
        row_weight: (B, L, E).
        diagonal: Added to row_weight_i · α_ii before the column weights, (B, L, E).
        column_weights: Any number M of them, (M, B, L, E).
    """

    delta: Tensor
    b: Tensor
    c: Tensor
    row_weight: Tensor
    diagonal: Tensor
    column_weights: Tensor

    def tokens(self, start: int, stop: int) -> 'ScanMatrix':
        """Return the factors of the tokens ``start`` to ``stop`` - 1."""
        return ScanMatrix(*(x[..., start:stop, :] for x in self))

    def channels(self, start: int, stop: int) -> 'ScanMatrix':
        """Return the factors of the channels ``start`` to ``stop`` - 1."""
        delta, row_weight, diagonal, column_weights = (
            x[..., start:stop] for x in (self.delta, self.row_weight, self.diagonal, self.column_weights)
        )
        return ScanMatrix(delta, self.b, self.c, row_weight, diagonal, column_weights)


def scan_rows(matrix: ScanMatrix, decay: Tensor, start: int, stop: int, mean: bool) -> Tensor:
    """Return the rows ``start`` to ``stop`` - 1 of the matrices, up to column ``stop`` - 1.

    Args:
        matrix: Factors of all tokens.
        decay: A ≤ 0, (E, N).
        start, stop: Range of the rows.
        mean: Whether to return the mean over the channels.

    Returns:
        (M, B, K, stop - start, stop), exactly 0 above the diagonal.
    """
    rows = matrix.tokens(start, stop)
    triangle = _triangle(rows, decay, mean)
    if start == 0:
        return triangle
    return torch.cat((_tile(rows, matrix.tokens(0, start), decay, mean), triangle), -1)


def _tile(later: ScanMatrix, earlier: ScanMatrix, decay: Tensor, mean: bool) -> Tensor:
    """Return the matrices (M, B, K, T, S) of T tokens and the S tokens directly before them."""
    to_later = later.delta.cumsum(1)
    from_earlier = F.pad(earlier.delta[:, 1:], (0, 0, 0, 1)).flip(1).cumsum(1).flip(1)
    reading = _factor(to_later, decay, later.c, later.row_weight)  # (B, T, E, N)
    writing = _factor(from_earlier, decay, earlier.b, earlier.delta)  # (B, S, E, N)
    channels, formula = decay.shape[0], 'bten,bsen->bts' if mean else 'bten,bsen->bets'
    if mean:
        reading /= channels
    tiles = [torch.einsum(formula, reading, writing * weight[..., None]) for weight in earlier.column_weights]
    return torch.stack([tile[:, None] if mean else tile for tile in tiles])


def _factor(distance: Tensor, decay: Tensor, state: Tensor, weight: Tensor) -> Tensor:
    """Return exp(A · distance) · state · weight, (B, L, E, N)."""
    factor = distance[..., None] * decay
    # Products of numbers near the limit of the type are denormal, and 20 times as slow. What this sets to 0 is smaller
    # than the weight of a token next to the boundary by a factor of 1e-19 (float32) or 1e-154 (float64).
    limit = torch.finfo(factor.dtype).tiny ** 0.5
    factor = torch.threshold_(factor.clamp_(min=1.5 * math.log(limit)).exp_(), limit, 0.0)
    return factor.mul_(state[:, :, None]).mul_(weight[..., None])


def _triangle(rows: ScanMatrix, decay: Tensor, mean: bool) -> Tensor:
    """Return the matrices between the tokens of a block, (M, B, K, T, T)."""
    batch, count = rows.delta.shape[:2]
    size = 1 << (count - 1).bit_length()
    rows = ScanMatrix(*(F.pad(x, (0, 0, 0, size - count)) for x in rows))
    alpha = (rows.c * rows.b).sum(-1, keepdim=True) * rows.delta  # (B, size, E)
    diagonal = (rows.row_weight * alpha + rows.diagonal) * rows.column_weights  # (M, B, size, E)
    if mean:
        diagonal = diagonal.mean(-1, keepdim=True)
    blocks = diagonal[..., None, None]  # (M, B, blocks, K, half, half)
    half = 1
    while half < size:
        early, late = (
            ScanMatrix(*(x.unflatten(-2, (-1, 2, half))[..., side, :, :].flatten(-4, -3) for x in rows))
            for side in (0, 1)
        )
        below = _tile(late, early, decay, mean).unflatten(1, (batch, -1))  # (M, B, blocks / 2, K, half, half)
        first, second = blocks.unflatten(2, (-1, 2)).unbind(3)
        blocks = torch.cat((torch.cat((first, torch.zeros_like(below)), -1), torch.cat((below, second), -1)), -2)
        half *= 2
    return blocks[:, :, 0, :, :count, :count]
