"""FCViT backbones."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from .arch import arch_table
from .fcvit_block import ConvNorm, FCViTBlock
from .pyramid_backbone import PyramidBackbone


@MODELS.register_module()
class FCViT(PyramidBackbone):
    """FCViT, the fully convolutional vision transformer (arXiv 2212.12552).

    Blocks of global context and 11 × 11 depthwise convolutions, without attention and position embeddings. See
    ``docs/fcvit.md``.

    Args:
        args, kwargs: Arguments of :class:`PyramidBackbone`. ``arch`` is ``'nano'`` (for demonstrations), ``'tiny'``,
            ``'b12'``, ``'b24'``, ``'b48'``, or a dict with exactly the keys ``embed_dims`` and ``depths`` (widths and
            numbers of blocks of the stages), ``mixer_ratios`` (channels within the channel mixers, as multiples of the
            widths), ``num_heads`` (of the similarities; divides the widths, as 8 does) and ``kernel_sizes`` (odd sides
            of the two depthwise kernels of a block).
        layer_scale: Initial value of the factors of the branches; the published classifiers have 1e-5, the detectors
            1e-6.
        norm_cfg: Norm of stem and downsampling, as for mmcv's ``build_norm_layer``; ``dict(type='SyncBN')`` for a
            training on several devices with few images on each.
    """

    arch_zoo = arch_table(
        ('embed_dims', 'depths', 'mixer_ratios', 'num_heads', 'kernel_sizes'),
        nano=((32, 48, 64, 96), (1, 1, 2, 1), (4, 4, 4, 4), 8, (11, 11)),
        tiny=((32, 64, 160, 320), (3, 3, 5, 2), (8, 8, 4, 4), 8, (11, 11)),
        b12=((64, 128, 320, 512), (2, 2, 6, 2), (8, 8, 4, 4), 8, (11, 11)),
        b24=((64, 128, 320, 512), (4, 4, 12, 4), (8, 8, 4, 4), 8, (11, 11)),
        b48=((64, 128, 320, 512), (8, 8, 24, 8), (8, 8, 4, 4), 8, (11, 11)),
    )

    def __init__(
        self, *args: Any, layer_scale: float = 1e-5, norm_cfg: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.layer_scale = layer_scale
        self.norm_cfg = dict(norm_cfg or {'type': 'BN'})
        super().__init__(*args, **kwargs)

    def depths_of(self, sizes: Mapping[str, Any]) -> Sequence[int]:
        return sizes['depths']

    def make_downsample(self, sizes: Mapping[str, Any], stage: int, in_channels: int) -> ConvNorm:
        kernel_size, stride = (3, 2) if stage else (7, 4)
        return ConvNorm(in_channels, sizes['embed_dims'][stage], kernel_size, stride, self.norm_cfg)

    def make_block(self, sizes: Mapping[str, Any], stage: int, index: int, drop_path_rate: float) -> FCViTBlock:
        return FCViTBlock(
            sizes['embed_dims'][stage],
            sizes['mixer_ratios'][stage],
            sizes['kernel_sizes'],
            sizes['num_heads'],
            self.layer_scale,
            drop_path_rate,
        )

    def make_norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(1, channels)
