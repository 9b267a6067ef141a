"""Data sets. Importing this package registers them with MMEngine, and the metric that belongs to COCO data."""

import mmdefocus.datasets.openmmlab  # (first of all: it imports quietly what the others need)
import mmdefocus.evaluation.coco_metric  # noqa: F401 (registers the metric that the configs name)
from mmdefocus.datasets.coco import DefocusCocoDataset
from mmdefocus.datasets.digits_classification import DefocusDigits
from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.image_folder import DefocusImageFolder
from mmdefocus.datasets.loading import DefocusLoadImage

__all__ = [
    'DataError',
    'DefocusCocoDataset',
    'DefocusDigits',
    'DefocusImageFolder',
    'DefocusLoadImage',
    'MissingFileError',
]
