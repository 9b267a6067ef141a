"""Image classification and object detection with the inferencers of MMPreTrain and MMDetection, made strict.

Importing this module adds our models to MMPreTrain's list (see :mod:`mmdefocus.apis.model_index`).
"""

from mmdefocus.apis.classification_inferencer import ClassificationInferencer
from mmdefocus.apis.detection_inferencer import DetectionInferencer
from mmdefocus.apis.images import IMAGE_SUFFIXES, list_images, read_image

__all__ = ['IMAGE_SUFFIXES', 'ClassificationInferencer', 'DetectionInferencer', 'list_images', 'read_image']
