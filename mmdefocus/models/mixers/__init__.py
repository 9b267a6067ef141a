"""Token mixers: modules that map token sequences (B, L, C) to sequences of the same shape."""

from .attention import AttentionMixer
from .mamba import MambaMixer
from .retention import RetentionMixer
from .token_mixer import TokenMixer

__all__ = ['AttentionMixer', 'MambaMixer', 'RetentionMixer', 'TokenMixer']
