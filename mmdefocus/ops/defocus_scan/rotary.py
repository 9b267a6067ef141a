"""Learnable rotary position embedding: the centre of the band-pass filter (section 3 of the paper, arXiv 2406.04342).

Shapes: B batch, L tokens, N state.
"""

import torch
from torch import Tensor


def learnable_rotary(x: Tensor, positions: Tensor, freq: Tensor) -> Tensor:
    """Mix the channels of each pair (2i, 2i + 1) with phases that grow along the sequence.

    x_j ← x_j cos(θ_j) + rot(x)_j sin(θ_j) with θ_j = position · f_j, rot(x)_2i = −x_2i+1 and rot(x)_2i+1 = x_2i.
    Both channels of a pair have their own frequency, so this is no orthogonal rotation, and not the usual RoPE.

    Args:
        x: (B, L, N), N even, float32 or float64.
        positions: (L), in the type of ``x``: bfloat16 cannot count past 256.
        freq: (N), radians per unit of position.

    Returns:
        (B, L, N).
    """
    phases = torch.outer(positions, freq)  # (L, N)
    rotated = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return x * phases.cos() + rotated * phases.sin()
