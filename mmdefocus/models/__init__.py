"""Networks of De-focus Attention; importing this package registers them in MMEngine's root registry."""

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
