"""COCO-format data that says what is wrong with it."""

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS, TRANSFORMS


@DATASETS.register_module()
class DefocusCocoDataset(CocoDataset):
    """MMDetection's ``CocoDataset``."""


@TRANSFORMS.register_module()
class LoadImageStrict(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``."""
