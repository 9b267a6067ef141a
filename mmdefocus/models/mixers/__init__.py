"""Token mixers: modules that map a token sequence (B, L, C) to another of the same shape."""

from .mamba import MambaMixer
from .token_mixer import TokenMixer

__all__ = ['MambaMixer', 'TokenMixer']
