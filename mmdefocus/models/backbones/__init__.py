"""Backbones: from images to class token, token sequence or feature map."""

from .arch import arch_table
from .block import DefocusBlock
from .dat import DAT
from .defocus_backbone import DefocusBackbone
from .defocus_mamba import DefocusMamba
from .defocus_retnet import DefocusRetNet
from .defocus_vit import DefocusViT
from .fcvit import FCViT
from .pyramid_backbone import PyramidBackbone, PyramidBlock
from .vision_backbone import VisionBackbone

__all__ = [
    'DAT',
    'DefocusBackbone',
    'DefocusBlock',
    'DefocusMamba',
    'DefocusRetNet',
    'DefocusViT',
    'FCViT',
    'PyramidBackbone',
    'PyramidBlock',
    'VisionBackbone',
    'arch_table',
]
