"""Data sets. Importing this package registers them with MMEngine."""

from mmdefocus.datasets.coco import DefocusCocoDataset, LoadImageStrict

__all__ = ['DefocusCocoDataset', 'LoadImageStrict']
