"""Token mixers: modules that map a token sequence (B, L, C) to another of the same shape."""

from .attention import AttentionMixer
from .mamba import MambaMixer
from .retention import RetentionMixer
from .token_mixer import TokenMixer

__all__ = ['AttentionMixer', 'MambaMixer', 'RetentionMixer', 'TokenMixer']
