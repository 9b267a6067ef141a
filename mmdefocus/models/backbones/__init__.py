"""Backbones: from images to class token, token sequence or feature map."""

from .arch import arch_table
from .block import DefocusBlock
from .defocus_backbone import DefocusBackbone
from .defocus_mamba import DefocusMamba
from .defocus_retnet import DefocusRetNet
from .defocus_vit import DefocusViT
from .vision_backbone import VisionBackbone

__all__ = [
    'DefocusBackbone',
    'DefocusBlock',
    'DefocusMamba',
    'DefocusRetNet',
    'DefocusViT',
    'VisionBackbone',
    'arch_table',
]
