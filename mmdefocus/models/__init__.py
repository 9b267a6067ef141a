"""Networks of De-focus Attention; importing this package registers them, and safe checkpoint loading, in MMEngine."""

from . import (
    flop_handles,  # noqa: F401 (MMEngine's FLOP counter gets to know our operators)
    mmcv_sampling,  # noqa: F401 (mmcv's deformable attention is faster on CPUs)
)
from .backbones import DAT, DefocusBackbone, DefocusBlock, DefocusMamba, DefocusRetNet, DefocusViT, FCViT
from .heads import DefocusClsHead
from .map_mixers import DeformableAttentionMixer, NeighbourhoodAttentionMixer
from .mixers import AttentionMixer, MambaMixer, RetentionMixer
from .necks import SimpleFeaturePyramid
from .norms import DefocusLN2d

__all__ = [
    'DAT',
    'AttentionMixer',
    'DefocusBackbone',
    'DefocusBlock',
    'DefocusClsHead',
    'DefocusLN2d',
    'DefocusMamba',
    'DefocusRetNet',
    'DefocusViT',
    'DeformableAttentionMixer',
    'FCViT',
    'MambaMixer',
    'NeighbourhoodAttentionMixer',
    'RetentionMixer',
    'SimpleFeaturePyramid',
]
