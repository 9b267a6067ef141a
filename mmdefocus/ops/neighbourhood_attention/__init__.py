"""Attention of every pixel to the K × K pixels around it, with a learned bias per offset (block type N of DAT++)."""

from .attention import neighbourhood_attention

__all__ = ['neighbourhood_attention']
