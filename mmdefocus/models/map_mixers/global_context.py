"""The token mixer of FCViT: global context and depthwise convolutions (arXiv 2212.12552).

Shapes: B batch, C channels, h heads, d = C / h channels of a head, H and W rows and columns of a feature map.
"""

import torch
from torch import Tensor, nn

from ..convolution_init import init_convolutions
from ..precision import at_least_float32, autocast_off

REDUCTION = 8
SMALLEST_BOTTLENECK = 16
STD_EPS = 1e-5


class GlobalContext(nn.Module):
    """Global context of a map, weighted by the similarity of every pixel to it, (B, C, H, W) → (B, C, H, W).

    The mean over all pixels passes a bottleneck with a competition, u = F2 max(F1 g, F1' g), and every pixel receives
    its head's part of u times its own similarity to g. Nothing in it depends on the number of pixels, so maps may have
    any size.

    Args:
        channels: C, a multiple of 8 and of ``num_heads``.
        num_heads: h.

    Raises:
        ValueError: If ``channels`` is not such a multiple.
    """

    def __init__(self, channels: int, num_heads: int = 8) -> None:
        super().__init__()
        if channels % REDUCTION or channels % num_heads:
            raise ValueError(f'channels must be a multiple of {REDUCTION} and of num_heads={num_heads}, got {channels}')
        self.num_heads = num_heads
        self.rescale_weight = nn.Parameter(torch.empty(num_heads))
        self.rescale_bias = nn.Parameter(torch.empty(num_heads))
        self.fc1 = nn.Linear(channels, 2 * channels // REDUCTION)
        self.fc2 = nn.Linear(channels // REDUCTION, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the published initial values."""
        nn.init.ones_(self.rescale_weight)
        nn.init.zeros_(self.rescale_bias)
        for layer in (self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def similarity(self, x: Tensor) -> Tensor:
        """Compare every pixel with the mean of the map, head by head.

        s = ⟨x, g⟩ / √d, standardised over the heads and pixels of a sample, then scaled and shifted by the learnable
        values of the head.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, h, H, W), at least float32, whatever autocast says.
        """
        with autocast_off(x.device):
            heads = at_least_float32(x).flatten(2).unflatten(1, (self.num_heads, -1))  # (B, h, d, H·W)
            context = heads.mean(-1, keepdim=True)
            s = (context.mT @ heads).squeeze(2) * heads.shape[2] ** -0.5  # (B, h, H·W)
            # A single value, of one head on one pixel, has no unbiased deviation.
            correction = 0 if self.num_heads == 1 and s.shape[2] == 1 else 1
            mean, std = s.mean((1, 2), keepdim=True), s.std((1, 2), correction=correction, keepdim=True)
            s = (s - mean) / (std + STD_EPS)
            s = s * at_least_float32(self.rescale_weight)[:, None] + at_least_float32(self.rescale_bias)[:, None]
        return s.unflatten(-1, x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Compute the context of every pixel; the result has the dtype of ``x``."""
        first, second = self.fc1(x.mean((2, 3))).chunk(2, dim=-1)  # (B, C / 8) each
        context = self.fc2(torch.maximum(first, second)).to(x.dtype).unflatten(-1, (self.num_heads, -1))  # (B, h, d)
        similarity = self.similarity(x).to(x.dtype)
        return (similarity.unsqueeze(2) * context[..., None, None]).flatten(1, 2)


class GlobalContextMixer(nn.Module):
    """Global context, depthwise convolution and bottleneck, twice, (B, C, H, W) → (B, C, H, W).

    x ← x + GlobalContext(x); x ← depthwise convolution of x; x ← GELU(P2 GELU(P1 x)) with m = max(C // 8, 16) channels
    between the two pointwise convolutions.

    Args:
        channels: C, a multiple of 8 and of ``num_heads``.
        kernel_sizes: Odd sides of the kernels of the two depthwise convolutions.
        num_heads: Heads of the similarity.

    Raises:
        ValueError: If ``channels`` is not such a multiple, or if a kernel is even.
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, int] = (11, 11), num_heads: int = 8) -> None:
        super().__init__()
        if len(kernel_sizes) != 2 or not all(size % 2 for size in kernel_sizes):
            raise ValueError(f'kernel_sizes must be two odd numbers, got {kernel_sizes}')
        first, second = kernel_sizes
        self.gc1 = GlobalContext(channels, num_heads)
        self.dw1 = nn.Conv2d(channels, channels, first, padding=first // 2, groups=channels)
        self.fc1 = _bottleneck(channels)
        self.gc2 = GlobalContext(channels, num_heads)
        self.dw2 = nn.Conv2d(channels, channels, second, padding=second // 2, groups=channels)
        self.fc2 = _bottleneck(channels)
        init_convolutions(self)

    def reset_parameters(self) -> None:
        """Set the published initial values."""
        init_convolutions(self)
        for context in (self.gc1, self.gc2):
            context.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of a map."""
        x = self.fc1(self.dw1(x + self.gc1(x)))
        return self.fc2(self.dw2(x + self.gc2(x)))


def _bottleneck(channels: int) -> nn.Sequential:
    hidden = max(channels // REDUCTION, SMALLEST_BOTTLENECK)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, channels, 1), nn.GELU())
