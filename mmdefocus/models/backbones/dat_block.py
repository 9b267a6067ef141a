"""Parts of DAT and DAT++: stems, downsampling, feed-forward networks and the block.

Shapes: B batch, C channels, H and W rows and columns of a map.
"""

import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from ..norms import DefocusLN2d
from .pyramid_backbone import PyramidBlock

FFN_RATIO = 4


class ResettableSequential(nn.Sequential):
    """Layers in a row, whose initial values are PyTorch's."""

    def reset_parameters(self) -> None:
        """Set the initial values of all layers."""
        reset_layers(self)


def reset_layers(module: nn.Module) -> None:
    """Set PyTorch's initial values of the convolutions, projections and norms in a module."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.LayerNorm):
            layer.reset_parameters()


def overlapping_stem(in_channels: int, channels: int) -> ResettableSequential:
    """Build the stem of DAT++, (B, in_channels, H, W) → (B, C, H / 4, W / 4), sides rounded up."""
    return ResettableSequential(
        nn.Conv2d(in_channels, channels // 2, 3, 2, 1),
        DefocusLN2d(channels // 2),
        nn.GELU(),
        nn.Conv2d(channels // 2, channels, 3, 2, 1),
        DefocusLN2d(channels),
    )


def patch_stem(in_channels: int, channels: int) -> ResettableSequential:
    """Build the stem of DAT, (B, in_channels, H, W) → (B, C, H / 4, W / 4), sides rounded down."""
    return ResettableSequential(nn.Conv2d(in_channels, channels, 4, 4), DefocusLN2d(channels))


def downsampling(in_channels: int, channels: int, overlapping: bool) -> ResettableSequential:
    """Build the layer between two stages; it halves the sides, overlapping (rounded up) or not (rounded down)."""
    size, padding = (3, 1) if overlapping else (2, 0)
    return ResettableSequential(nn.Conv2d(in_channels, channels, size, 2, padding, bias=False), DefocusLN2d(channels))


class ConvFeedForward(nn.Module):
    """conv2(GELU(u + dwconv(u))), u = conv1(x), (B, C, H, W) → (B, C, H, W) (arXiv 2309.01430, section 3.4).

    Args:
        channels: C; the hidden width is four times C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = FFN_RATIO * channels
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map the pixels and their neighbours."""
        hidden = self.conv1(x)  # (B, 4 * C, H, W)
        return self.conv2(F.gelu(hidden + self.dwconv(hidden)))


class PixelFeedForward(nn.Module):
    """linear2(GELU(linear1(x))) on every pixel, (B, C, H, W) → (B, C, H, W), as in DAT.

    Args:
        channels: C; the hidden width is four times C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, FFN_RATIO * channels)
        self.linear2 = nn.Linear(FFN_RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map every pixel."""
        hidden = F.gelu(self.linear1(x.permute(0, 2, 3, 1)))  # (B, H, W, 4 * C)
        return self.linear2(hidden).permute(0, 3, 1, 2)


class DATBlock(PyramidBlock):
    """Local perception, attention and feed-forward network, each added to its input, (B, C, H, W) → (B, C, H, W).

    Args:
        channels: C.
        attn: Token mixer on maps.
        local_perception: If True, first add a depthwise 3 × 3 convolution of the map (DAT++).
        conv_ffn: If True, the feed-forward network has a depthwise convolution (DAT++).
        drop_path_rate: Drop path rate of attention and feed-forward network.
    """

    def __init__(
        self, channels: int, attn: nn.Module, local_perception: bool, conv_ffn: bool, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.lpu = nn.Conv2d(channels, channels, 3, padding=1, groups=channels) if local_perception else None
        self.norm1 = DefocusLN2d(channels)
        self.attn = attn
        self.norm2 = DefocusLN2d(channels)
        self.ffn = ConvFeedForward(channels) if conv_ffn else PixelFeedForward(channels)
        self.drop_path = DropPath(drop_path_rate)

    def reset_parameters(self) -> None:
        for part in (self.lpu, self.norm1, self.norm2, self.ffn):
            if part is not None:
                reset_layers(part)
        self.attn.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        if self.lpu is not None:
            x = x + self.lpu(x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.ffn(self.norm2(x)))
