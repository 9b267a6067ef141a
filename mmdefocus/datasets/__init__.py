"""Data sets. Importing this package registers them with MMEngine."""

from mmdefocus.datasets.coco import DefocusCocoDataset
from mmdefocus.datasets.loading import DefocusLoadImage

__all__ = ['DefocusCocoDataset', 'DefocusLoadImage']
