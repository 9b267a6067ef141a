"""Networks of De-focus Attention; importing this package registers them, and safe checkpoint loading, in MMEngine."""

from . import flop_handles  # noqa: F401 (MMEngine's FLOP counter gets to know our operators)
from .backbones import DefocusBackbone, DefocusBlock, DefocusMamba, DefocusRetNet, DefocusViT
from .heads import DefocusClsHead
from .mixers import AttentionMixer, MambaMixer, RetentionMixer
from .necks import SimpleFeaturePyramid
from .norms import DefocusLN2d

__all__ = [
    'AttentionMixer',
    'DefocusBackbone',
    'DefocusBlock',
    'DefocusClsHead',
    'DefocusLN2d',
    'DefocusMamba',
    'DefocusRetNet',
    'DefocusViT',
    'MambaMixer',
    'RetentionMixer',
    'SimpleFeaturePyramid',
]
