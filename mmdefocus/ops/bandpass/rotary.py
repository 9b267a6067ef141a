"""Rotary position embedding of attention and retention: the centre of the band-pass, applied to queries and keys.

The factor exp(i θ (t - s)) of a logit is the product of a rotation of the query by θ t and of the key by θ s. With both
rotated once, everything after is real. The phases θ t are computed in float64 and their cosines and sines rounded once:
in float32, a phase of 8192 radians has an error of 5e-4.

Shapes: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs.
"""

import torch
from torch import Tensor


def apply_rotary(x: Tensor, freq: Tensor | None, first_position: int = 0) -> Tensor:
    """Rotate the channel pairs (2j, 2j + 1) of every token by its position times the frequency.

    Args:
        x: (B, H, L, d), float32 or float64.
        freq: θ in radians per token, (H, P); None returns ``x``.
        first_position: Position of the first token; may be negative.

    Returns:
        (B, H, L, d).
    """
    if freq is None:
        return x
    positions = torch.arange(first_position, first_position + x.shape[2], device=x.device, dtype=torch.float64)
    phases = positions[:, None] * freq.to(torch.float64)[:, None]  # (H, L, P)
    cos, sin = phases.cos().to(x.dtype), phases.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
