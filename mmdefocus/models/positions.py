"""Learnable relative positions: the centre of the band-pass filter (section 3 of the paper, arXiv 2406.04342).

Shapes: L tokens, N state channels.
"""

import torch
from torch import Tensor


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
