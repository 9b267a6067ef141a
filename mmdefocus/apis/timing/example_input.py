"""One image as the test pipeline of a config produces it."""

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import DefaultScope
from PIL import Image

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.image_size import image_size as classifier_image_size
from mmdefocus.apis.image_size import is_built_for_images

_SIDE = 640  # of a detector whose pipeline keeps the size of the images


def with_image_size(cfg: Config, side: int) -> Config:
    """Return a copy of a config whose test pipeline, and a backbone that is made for one size, take another size.

    Args:
        cfg: Config of a detector or a classifier.
        side: Height and width in pixels.

    Raises:
        UsageError: No step of the test pipeline sets a size, or the size is not positive.
    """
    if side < 1:
        raise UsageError(f'the image size is a number of pixels such as 224, got {side}')
    cfg = copy.deepcopy(cfg)
    changed = False
    for step in _test_pipeline(cfg):
        for key in ('scale', 'crop_size'):
            if step.get(key) is not None and step['type'].rpartition('.')[2] in ('Resize', 'CenterCrop', 'ResizeEdge'):
                step[key] = (side, side) if isinstance(step[key], list | tuple) else side
                changed = True
    if not changed:
        raise UsageError(
            'the image size cannot be changed: no Resize, ResizeEdge or CenterCrop of the test pipeline sets one; '
            'omit the image size'
        )
    if cfg.get('default_scope') == 'mmpretrain' and is_built_for_images(cfg):
        cfg.model.backbone.img_size = side
    return cfg


def example_batch(cfg: Config, batch_size: int) -> tuple[dict[str, Any], tuple[int, int]]:
    """Prepare a photograph with the test pipeline of a config.

    Args:
        cfg: Config of a detector or a classifier.
        batch_size: How many times the image is in the batch.

    Returns:
        A batch for ``model.test_step``, and height and width of its images in pixels.

    Raises:
        UsageError: The config has no test pipeline.
    """
    from sklearn.datasets import load_sample_image

    detect = cfg.get('default_scope') == 'mmdet'
    pipeline = [step for step in _test_pipeline(cfg) if 'LoadAnnotations' not in step['type']]
    height, width = _detector_size(pipeline) if detect else classifier_image_size(cfg)
    photograph = Image.fromarray(load_sample_image('china.jpg')).resize((width, height))
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        path = Path(folder) / 'example.png'
        photograph.save(path)
        results = dict(img_path=str(path), img_id=0)
        if not any('LoadImage' in step['type'] for step in pipeline):  # the data set gives arrays in BGR
            shape = (height, width)
            results |= dict(img=np.array(photograph)[..., ::-1].copy(), img_shape=shape, ori_shape=shape)
        results = Compose(pipeline)(results)
    batch = (pseudo_collate if detect else default_collate)([copy.deepcopy(results) for _ in range(batch_size)])
    height, width = batch['inputs'][0].shape[-2:]
    return batch, (height, width)


def _test_pipeline(cfg: Config) -> list[dict[str, Any]]:
    dataset: Any = (cfg.get('test_dataloader') or {}).get('dataset')
    while isinstance(dataset, Mapping) and 'pipeline' not in dataset:  # wrappers, and the parts of several sets
        parts = dataset.get('datasets')
        dataset = parts[0] if parts else dataset.get('dataset')
    if not dataset:
        raise UsageError('the config has no test_dataloader.dataset.pipeline, which prepares the images; add it')
    return dataset['pipeline']


def _detector_size(pipeline: list[dict[str, Any]]) -> tuple[int, int]:
    """Return height and width of an image that fills the size to which a detector's pipeline resizes."""
    scales = [step['scale'] for step in pipeline if isinstance(step.get('scale'), list | tuple)]
    return (scales[-1][1], scales[-1][0]) if scales else (_SIDE, _SIDE)
