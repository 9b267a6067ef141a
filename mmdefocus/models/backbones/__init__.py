"""Backbones: image to class token, token sequence or feature map."""

from .defocus_backbone import DefocusBackbone, DefocusBlock
from .defocus_mamba import DefocusMamba
from .defocus_retnet import DefocusRetNet
from .defocus_vit import DefocusViT

__all__ = ['DefocusBackbone', 'DefocusBlock', 'DefocusMamba', 'DefocusRetNet', 'DefocusViT']
