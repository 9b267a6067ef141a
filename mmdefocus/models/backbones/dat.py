"""DAT and DAT++: pyramids with deformable attention."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoint.families.dat_sizes import find_sizes
from ..map_mixers import DeformableAttentionMixer, NeighbourhoodAttentionMixer, WindowAttentionMixer
from ..map_mixers.deformable_sampling import REFERENCE_POINTS
from ..norms import DefocusLN2d
from .arch import arch_table
from .arguments import check_choice, is_whole
from .dat_block import DATBlock, downsampling, overlapping_stem, patch_stem
from .pyramid_backbone import SMALLEST_SIDE, PyramidBackbone

_T, _S, _B = (64, 128, 256, 512), (96, 192, 384, 768), (128, 256, 512, 1024)
_BLOCKS = ('ND', 'NDND', 'NDNDNDNDNDNDNDNDND', 'DD')
_WINDOWS_6, _WINDOWS_18 = ('LS', 'LS', 'LDLDLD', 'LD'), ('LS', 'LS', 'LDLDLDLDLDLDLDLDLD', 'LD')
_OFFSETS = ((9, 7, 5, 3), (8, 4, 2, 1))  # kernels and strides
_OFFSETS_V1 = ((9, 7, 5, 3), (8, 4, 1, 1))
_PLUS_PLUS = (True, True, True, -1.0, 'Hk - 1')
_PLUS = (False, False, False, -1.0, 'Hk - 1')
_V1 = (False, False, False, 2.0, 'Hk')


@MODELS.register_module()
class DAT(PyramidBackbone):
    """Deformable attention transformers: DAT++ (arXiv 2309.01430) and DAT (arXiv 2201.00520).

    Blocks are given by letters: ``N`` neighbourhood attention, ``D`` deformable attention, ``L`` window attention, and
    ``S`` window attention with shifted windows.

    Args:
        args, kwargs: Arguments of :class:`PyramidBackbone`. ``arch`` is ``'tiny'``, ``'small'`` or ``'base'`` (DAT++),
            ``'plus-tiny'`` (DAT+, without the convolutions that DAT++ adds), ``'v1-tiny'``, ``'v1-small'`` or
            ``'v1-base'`` (DAT), ``'nano'`` (DAT++ for demonstrations), or a dict with exactly these keys. The first
            six have a value per stage.

            - ``embed_dims``: Channels.
            - ``blocks``: A letter per block, such as ``'ND'``.
            - ``num_heads``: Attention heads; divides the channels.
            - ``num_groups``: Offset groups of ``D``; divides the heads.
            - ``offset_kernels``, ``offset_strides``: Kernel and stride of the offset network of ``D``.
            - ``overlap_patches``: Whether the convolutions of stem and downsampling overlap.
            - ``local_perception``: Whether blocks begin with a depthwise convolution.
            - ``conv_ffn``: Whether feed-forward networks have a depthwise convolution.
            - ``offset_range``, ``reference_points``: As in :class:`.DeformableAttentionMixer`.
        img_size: Nominal side of the images in pixels, a multiple of 32. It gives the sizes of the tables of position
            biases and nothing else: images of any size are accepted, and weights load only into the nominal size that
            they were trained with (published DAT++ weights: always 224).
        window_size: Side of neighbourhoods and windows, in pixels of the map.
    """

    arch_zoo = arch_table(
        (
            *('embed_dims', 'blocks', 'num_heads', 'num_groups', 'offset_kernels', 'offset_strides'),
            *('overlap_patches', 'local_perception', 'conv_ffn', 'offset_range', 'reference_points'),
        ),
        nano=((32, 64, 96, 128), ('ND', 'ND', 'ND', 'DD'), (2, 4, 6, 8), (1, 2, 3, 4), *_OFFSETS, *_PLUS_PLUS),
        tiny=(_T, _BLOCKS, (2, 4, 8, 16), (1, 2, 4, 8), *_OFFSETS, *_PLUS_PLUS),
        small=(_S, _BLOCKS, (3, 6, 12, 24), (1, 2, 3, 6), *_OFFSETS, *_PLUS_PLUS),
        base=(_B, _BLOCKS, (4, 8, 16, 32), (2, 4, 8, 16), *_OFFSETS, *_PLUS_PLUS),
        plus_tiny=(_T, _BLOCKS, (2, 4, 8, 16), (1, 2, 4, 8), *_OFFSETS, *_PLUS),
        v1_tiny=(_S, _WINDOWS_6, (3, 6, 12, 24), (1, 2, 3, 6), *_OFFSETS_V1, *_V1),
        v1_small=(_S, _WINDOWS_18, (3, 6, 12, 24), (1, 2, 3, 6), *_OFFSETS_V1, *_V1),
        v1_base=(_B, _WINDOWS_18, (4, 8, 16, 32), (1, 2, 4, 8), *_OFFSETS_V1, *_V1),
    )

    def __init__(self, *args: Any, img_size: int = 224, window_size: int = 7, **kwargs: Any) -> None:
        if not isinstance(img_size, int) or img_size < SMALLEST_SIDE or img_size % SMALLEST_SIDE:
            raise ValueError(f'img_size must be a positive multiple of {SMALLEST_SIDE}, got {img_size!r}')
        if not is_whole(window_size) or window_size < 1:
            raise ValueError(f'window_size must be a positive number of pixels, got {window_size!r}')
        self.img_size = img_size
        self.window_size = window_size
        super().__init__(*args, **kwargs)

    def depths_of(self, sizes: Mapping[str, Any]) -> Sequence[int]:
        for blocks in sizes['blocks']:
            if not blocks or set(blocks) - set('NDLS'):
                raise ValueError(f"arch['blocks'] must consist of the letters N, D, L and S, got {blocks!r}")
        check_choice("arch['reference_points']", sizes['reference_points'], REFERENCE_POINTS)
        return [len(blocks) for blocks in sizes['blocks']]

    def make_downsample(self, sizes: Mapping[str, Any], stage: int, in_channels: int) -> nn.Module:
        channels, overlapping = sizes['embed_dims'][stage], sizes['overlap_patches']
        if stage == 0:
            return (overlapping_stem if overlapping else patch_stem)(in_channels, channels)
        return downsampling(in_channels, channels, overlapping)

    def make_block(self, sizes: Mapping[str, Any], stage: int, index: int, drop_path_rate: float) -> DATBlock:
        channels, letter = sizes['embed_dims'][stage], sizes['blocks'][stage][index]
        attn = self._make_attention(sizes, stage, letter)
        return DATBlock(channels, attn, sizes['local_perception'], sizes['conv_ffn'], drop_path_rate)

    def make_norm(self, channels: int) -> DefocusLN2d:
        return DefocusLN2d(channels)

    def describe_size(self, weights: Mapping[str, Tensor]) -> str:
        return find_sizes(weights).describe(self.arch_zoo)

    def _make_attention(self, sizes: Mapping[str, Any], stage: int, letter: str) -> nn.Module:
        channels, num_heads = sizes['embed_dims'][stage], sizes['num_heads'][stage]
        map_size = self.img_size // 4 // 2**stage
        if letter == 'N':
            return NeighbourhoodAttentionMixer(channels, num_heads, self.window_size)
        if letter == 'D':
            return DeformableAttentionMixer(
                channels,
                num_heads,
                sizes['num_groups'][stage],
                sizes['offset_strides'][stage],
                sizes['offset_kernels'][stage],
                sizes['offset_range'],
                sizes['reference_points'],
                map_size=map_size,
            )
        shift = ceil(self.window_size / 2) if letter == 'S' else 0
        return WindowAttentionMixer(channels, num_heads, self.window_size, shift, map_size)
