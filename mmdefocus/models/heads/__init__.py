"""Heads that turn the backbones' tokens into predictions and losses."""

from .defocus_cls_head import DefocusClsHead

__all__ = ['DefocusClsHead']
