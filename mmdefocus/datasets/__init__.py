"""Data sets. Importing this package registers them with MMEngine, and the metric that belongs to COCO data."""

import mmdefocus.datasets.openmmlab  # noqa: F401 (first of all: it imports quietly what the others need)
from mmdefocus.datasets.coco import DefocusCocoDataset
from mmdefocus.datasets.digits_classification import DefocusDigits
from mmdefocus.datasets.image_folder import DefocusImageFolder
from mmdefocus.datasets.loading import DefocusLoadImage
from mmdefocus.evaluation import DefocusCocoMetric  # noqa: F401 (registers the metric that the configs name)

__all__ = ['DefocusCocoDataset', 'DefocusDigits', 'DefocusImageFolder', 'DefocusLoadImage']
