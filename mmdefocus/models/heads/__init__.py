"""Heads: tokens to predictions and losses."""

from .defocus_cls_head import DefocusClsHead

__all__ = ['DefocusClsHead']
