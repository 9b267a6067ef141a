"""Backbones: image to class token, token sequence or feature map."""

from .defocus_backbone import DefocusBackbone, DefocusBlock
from .defocus_mamba import DefocusMamba

__all__ = ['DefocusBackbone', 'DefocusBlock', 'DefocusMamba']
