"""Learnable relative positions: the centre of the band-pass filter (section 3 of the paper, arXiv 2406.04342).

Shapes: L tokens, N state channels.
"""

import torch
from torch import Tensor


def initial_frequencies(count: int, base: float = 100.0) -> Tensor:
    """Return initial rotary frequencies f_j = (base^(−j/N) − base^(−1)) / (1 − base^(−1)), j = 1..N, falling to 0.

    Args:
        count: N.
        base: Ratio of the highest to the lowest frequency before the shift to 0.

    Returns:
        (N,), float32, in radians per token.
    """
    exponents = torch.arange(1, count + 1, dtype=torch.float32) / count
    return (base**-exponents - 1 / base) / (1 - 1 / base)


def token_positions(length: int, rope_scale: float, like: Tensor) -> Tensor:
    """Return the positions 0, 1, …, L - 1 of a sequence, divided by ``rope_scale``.

    Args:
        length: L.
        rope_scale: Divides the positions.
        like: Tensor whose device and dtype the positions have; at least float32, since bfloat16 represents all
            integers only up to 256.

    Returns:
        (L,).
    """
    return torch.arange(length, device=like.device, dtype=like.dtype) / rope_scale
