"""Learnable relative positions: the centre of the band-pass filter (section 3 of the paper, arXiv 2406.04342).

Shapes: B batch, L tokens, N state channels.
"""

import torch
from torch import Tensor

from .precision import at_least_float32


def initial_frequencies(count: int, base: float = 100.0) -> Tensor:
    """Initial rotary frequencies f_j = (base^(−j/N) − base^(−1)) / (1 − base^(−1)), j = 1..N, falling to 0.

    Args:
        count: N.
        base: Ratio between the frequencies before the shift to 0.

    Returns:
        (N,), float32, in radians per token.
    """
    exponents = torch.arange(1, count + 1, dtype=torch.float32) / count
    return (base**-exponents - 1 / base) / (1 - 1 / base)


def token_positions(length: int, rope_scale: float, like: Tensor) -> Tensor:
    """Positions 0, 1, … of a sequence, divided by ``rope_scale``; (L,), on the device and in the dtype of ``like``.

    ``like`` must be at least float32: bfloat16 cannot count past 256.
    """
    return torch.arange(length, device=like.device, dtype=like.dtype) / rope_scale


def apply_learnable_rotary(x: Tensor, positions: Tensor, frequencies: Tensor) -> Tensor:
    """Mix the channels of each pair (2i, 2i + 1) with phases that grow along the sequence.

    x_j ← x_j cos(θ_j) + rot(x)_j sin(θ_j) with θ_j = position · f_j, rot(x)_2i = −x_2i+1 and rot(x)_2i+1 = x_2i.
    Both channels of a pair have a frequency of their own, so this is no orthogonal rotation (and no stock RoPE).

    Args:
        x: (B, L, N), N even, at least float32.
        positions: (L,), at least float32; see :func:`token_positions`.
        frequencies: (N,), radians per token.

    Returns:
        (B, L, N).
    """
    phases = torch.outer(positions, at_least_float32(frequencies))  # (L, N)
    rotated = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return x * phases.cos() + rotated * phases.sin()
