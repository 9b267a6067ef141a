"""Networks of De-focus Attention; importing this package registers them, and safe checkpoint loading, in MMEngine."""

from . import flop_handles  # noqa: F401 (MMEngine's FLOP counter gets to know our operators)
from .backbones import DefocusBackbone, DefocusBlock, DefocusMamba
from .heads import DefocusClsHead
from .mixers import MambaMixer
from .necks import SimpleFeaturePyramid
from .norms import DefocusLN2d

__all__ = [
    'DefocusBackbone',
    'DefocusBlock',
    'DefocusClsHead',
    'DefocusLN2d',
    'DefocusMamba',
    'MambaMixer',
    'SimpleFeaturePyramid',
]
