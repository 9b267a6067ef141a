"""Specification of the causal convolution: a sum over the taps of the kernel.

Shapes: B batch, E channels, L time, K kernel width.
"""

import torch
from torch import Tensor


def causal_conv1d_reference(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """Compute ``y_t = bias + sum over k of weight_k x_{t - K + 1 + k}`` per channel, with x zero before its start.

    Args:
        x: Input, (B, E, L), float32 or float64.
        weight: Kernel of every channel, (E, K).
        bias: (E), or None.
        silu: Whether to return ``y sigmoid(y)`` instead of y.

    Returns:
        (B, E, L).
    """
    width, length = weight.shape[1], x.shape[2]
    padded = torch.nn.functional.pad(x, (width - 1, 0))
    y = x.new_zeros(()) if bias is None else bias[:, None]
    for k in range(width):
        y = y + weight[:, k, None] * padded[:, :, k : k + length]
    return y * torch.sigmoid(y) if silu else y
