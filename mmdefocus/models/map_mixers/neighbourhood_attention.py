"""Block type N of DAT++: every pixel attends to the K × K pixels around it.

Shapes: B batch, C channels, h heads, H and W rows and columns of the map, d = C / h, K kernel_size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdefocus.ops import neighbourhood_attention


class NeighbourhoodAttentionMixer(nn.Module):
    """Multi-head neighbourhood attention with a learned bias per offset, (B, C, H, W) → (B, C, H, W).

    See :func:`mmdefocus.ops.neighbourhood_attention`. A map with fewer than K rows or columns is padded with zeros at
    the bottom and right before the projections, as in the published code, and the padding takes part as keys.

    Args:
        channels: C.
        num_heads: h, divides C.
        kernel_size: K, odd.

    Raises:
        ValueError: If ``channels`` does not divide into heads, or if ``kernel_size`` is even.
    """

    def __init__(self, channels: int, num_heads: int, kernel_size: int = 7) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f'channels must be a multiple of num_heads ({num_heads}), got {channels}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
        self.num_heads = num_heads
        self.kernel_size = kernel_size
        self.qkv = nn.Linear(channels, 3 * channels)
        self.rpb = nn.Parameter(torch.empty(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set PyTorch's initial values, and the bias from a truncated normal distribution of deviation 0.02."""
        self.qkv.reset_parameters()
        self.proj.reset_parameters()
        nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of a map (B, C, H, W)."""
        height, width = x.shape[2:]
        missing = (max(self.kernel_size - width, 0), max(self.kernel_size - height, 0))
        tokens = F.pad(x, (0, missing[0], 0, missing[1])).permute(0, 2, 3, 1)  # (B, H, W, C)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)  # (B, h, H, W, d)
        mixed = neighbourhood_attention(q, k, v, self.rpb, self.kernel_size)
        mixed = mixed[:, :, :height, :width].permute(0, 2, 3, 1, 4).flatten(3)  # (B, H, W, C)
        return self.proj(mixed).permute(0, 3, 1, 2)
