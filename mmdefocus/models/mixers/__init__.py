"""Token mixers: modules that map a token sequence (B, L, C) to another of the same shape."""

from .mamba import MambaMixer

__all__ = ['MambaMixer']
