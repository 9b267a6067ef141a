"""Data sets. Importing this package registers them with MMEngine."""

from mmdefocus.datasets.coco import DefocusCocoDataset
from mmdefocus.datasets.digits_classification import DefocusDigits
from mmdefocus.datasets.image_folder import DefocusImageFolder
from mmdefocus.datasets.loading import DefocusLoadImage

__all__ = ['DefocusCocoDataset', 'DefocusDigits', 'DefocusImageFolder', 'DefocusLoadImage']
