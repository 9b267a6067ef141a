"""Softmax attention and retention with a learnable band-pass: the token mixing of De-focus ViT and De-focus RetNet."""

from .attention import bandpass_attention
from .retention import retention

__all__ = ['bandpass_attention', 'retention']
