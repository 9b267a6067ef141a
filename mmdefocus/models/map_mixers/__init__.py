"""Token mixers of pyramidal networks: modules that map feature maps (B, C, H, W) to maps of the same shape."""

from .deformable_attention import DeformableAttentionMixer
from .global_context import GlobalContext, GlobalContextMixer
from .neighbourhood_attention import NeighbourhoodAttentionMixer
from .window_attention import WindowAttentionMixer

__all__ = [
    'DeformableAttentionMixer',
    'GlobalContext',
    'GlobalContextMixer',
    'NeighbourhoodAttentionMixer',
    'WindowAttentionMixer',
]
