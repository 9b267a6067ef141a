"""Images that a hook analyses, prepared as the validation prepares them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdefocus.analysis.prepared_image import PreparedImage, prepare_image
from mmdefocus.datasets.loading import DefocusLoadImage

from .errors import SetupError


def validation_images(runner: Runner, count: int) -> list[PreparedImage]:
    """Return the first images of the validation set.

    Raises:
        SetupError: There is none, or it has fewer images.
    """
    dataset = _dataset(runner)
    if len(dataset) < count:
        raise SetupError(f'DefocusOverFocusHook: num_images={count}, but the validation set has {len(dataset)} images')
    return [_prepare(runner, dataset[index], f'validation image {index}') for index in range(count)]


def read_images(runner: Runner, paths: Sequence[str]) -> list[PreparedImage]:
    """Read images and apply the pipeline of the validation set without its loading steps.

    Raises:
        SetupError: There is no validation set.
        OSError, ValueError: An image cannot be read.
    """
    transforms = _dataset(runner).pipeline.transforms
    steps = [step for step in transforms if not type(step).__name__.removeprefix('Defocus').startswith('Load')]
    prepared = []
    for path in paths:
        image = DefocusLoadImage().transform(dict(img_path=str(path)))['img']
        sample: Any = dict(
            img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2], img_path=str(path), img_id=0
        )
        for step in steps:
            sample = step(sample)
        prepared.append(_prepare(runner, sample, Path(path).name))
    return prepared


def _dataset(runner: Runner) -> Any:
    if runner._val_loop is None:
        raise SetupError(
            'DefocusOverFocusHook takes images and their preprocessing from the validation set, which the config does '
            'not have: set val_dataloader, val_cfg and val_evaluator'
        )
    return runner.val_loop.dataloader.dataset


def _prepare(runner: Runner, sample: dict[str, Any], name: str) -> PreparedImage:
    model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
    with torch.no_grad():
        batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        return prepare_image(model, batch, name)
