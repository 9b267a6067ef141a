"""Image classification and object detection: the inferencers of MMPreTrain and MMDetection, made strict.

Importing this module adds our models to MMPreTrain's model index (see :mod:`mmdefocus.apis.model_index`).
"""

from .classification_inferencer import ClassificationInferencer
from .detection_inferencer import DetectionInferencer
from .images import IMAGE_SUFFIXES, list_images, read_image

__all__ = ['IMAGE_SUFFIXES', 'ClassificationInferencer', 'DetectionInferencer', 'list_images', 'read_image']
