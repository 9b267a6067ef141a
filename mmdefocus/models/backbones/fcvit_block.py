"""The parts of FCViT besides its token mixer (arXiv 2212.12552).

Shapes: B batch, C channels, H and W rows and columns of a feature map.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from ..convolution_init import init_convolutions
from ..map_mixers.global_context import GlobalContextMixer
from .pyramid_backbone import PyramidBlock


class ConvNorm(nn.Module):
    """Strided convolution and norm, without activation: the stem and the downsampling of FCViT.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd side of the kernel.
        stride: Stride; a side of n pixels becomes ceil(n / stride).
        norm_cfg: Norm, as for mmcv's ``build_norm_layer``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, norm_cfg: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
        self.norm = build_norm_layer(dict(norm_cfg), out_channels)[1]
        init_convolutions(self)

    def reset_parameters(self) -> None:
        """Set the published initial values."""
        init_convolutions(self)
        self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        return self.norm(self.projection(x))


class ChannelMixer(nn.Module):
    """Feed-forward network with a depthwise 3 × 3 convolution, (B, C, H, W) → (B, C, H, W).

    fc2(GELU(dwconv(fc1(x)))), all convolutions with bias.

    Args:
        channels: C.
        hidden_channels: Channels between ``fc1`` and ``fc2``.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.dwconv = nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the published initial values."""
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels of a map."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class FCViTBlock(PyramidBlock):
    """x ← x + g1 · TokenMixer(norm1(x)); x ← x + g2 · ChannelMixer(norm2(x)), each branch with drop path.

    The norms are group norms with one group: they standardise a sample over channels and pixels.

    Args:
        channels: C, a multiple of 8 and of ``num_heads``.
        mixer_ratio: Channels within the channel mixer, as a multiple of C.
        kernel_sizes: Sides of the depthwise kernels of the token mixer.
        num_heads: Heads of its similarity.
        layer_scale: Initial value of g1 and g2, vectors of C values.
        drop_path_rate: Probability of dropping a branch of a sample in training.
    """

    def __init__(
        self,
        channels: int,
        mixer_ratio: int,
        kernel_sizes: tuple[int, int] = (11, 11),
        num_heads: int = 8,
        layer_scale: float = 1e-5,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.layer_scale = layer_scale
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), layer_scale, dtype=torch.get_default_dtype()))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), layer_scale, dtype=torch.get_default_dtype()))
        self.norm1 = nn.GroupNorm(1, channels)
        self.token_mixer = GlobalContextMixer(channels, kernel_sizes, num_heads)
        self.norm2 = nn.GroupNorm(1, channels)
        self.channel_mixer = ChannelMixer(channels, mixer_ratio * channels)
        self.drop_path = DropPath(drop_path_rate)

    def reset_parameters(self) -> None:
        for scale in (self.layer_scale_1, self.layer_scale_2):
            nn.init.constant_(scale, self.layer_scale)
        for part in (self.norm1, self.token_mixer, self.norm2, self.channel_mixer):
            part.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.token_mixer(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.channel_mixer(self.norm2(x)))
