"""Learn a few images by heart: the first diagnosis of a model that learns nothing from a data set."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdefocus.engine.random_state import random_state, restore_random_state
from mmdefocus.openmmlab import import_quietly

from .errors import UsageError
from .overfit_config import (
    METRICS,
    PASSES_PER_EPOCH,
    build_training_set,
    choose_images,
    overfit_config,
    task_scope,
)
from .overfit_pictures import draw_images
from .runs.runner import build_runner

# A side in pixels below which an object covers less than a token or a cell of the finest maps.
_TINY = 8


@dataclass(frozen=True)
class OverfitResult:
    """Outcome of a training that learned a few images by heart.

    Attributes:
        score: AP of the boxes, or accuracy, on the images that it was trained on; from 0 to 1.
        metric: Name of the metric in the logs.
        epochs: Passes over the images.
        passed: The score reached the target.
        images: Files of the images.
        work_dir: Folder of the log and of the pictures with true and predicted boxes or classes.
        target: Score that was asked for.
        objects: Number of boxes in the images; of images, for a classifier.
        tiny: Number of boxes with a side below 8 pixels after resizing.
        most_objects: Largest number of boxes in an image.
        most_predictions: Largest number of boxes that the model predicts per image; None if it is unknown.
        lr: Learning rate.
    """

    score: float
    metric: str
    epochs: int
    passed: bool
    images: tuple[str, ...]
    work_dir: Path
    target: float
    objects: int
    tiny: int
    most_objects: int
    most_predictions: int | None
    lr: float

    @property
    def verdict(self) -> str:
        """What the score says about data and model; for a failure with the usual causes, the likeliest first."""
        name = 'accuracy' if self.metric == METRICS['mmpretrain'] else 'AP'
        reached = f'{name} {self.score:.3f} on {len(self.images)} images after {self.epochs} passes'
        if self.passed:
            return f'{reached}: the data and the model fit together'
        boxes = [
            'boxes in another format, or of another size of the images: run "mmdefocus check-data" and look at the '
            f'pictures in {self.work_dir}',
            'wrong or mixed classes: compare the names in the pictures',
            f'objects too small for the image size: {self.tiny} of {self.objects} boxes have a side below {_TINY} '
            'pixels after resizing; raise image_size',
        ]
        if self.most_predictions is not None and self.most_objects > self.most_predictions:
            boxes.append(
                f'more objects than predictions: an image has {self.most_objects} boxes, and the model predicts at '
                f'most {self.most_predictions}; raise num_queries and max_per_img'
            )
        images = [
            'wrong or mixed classes: run "mmdefocus check-data" and compare the names in the pictures in '
            f'{self.work_dir}',
            'images too small to tell the classes apart after resizing: raise image_size',
        ]
        causes = images if name == 'accuracy' else boxes
        causes.append(f'the learning rate {self.lr:g}: try a third and three times of it')
        listed = '; '.join(f'({number}) {cause}' for number, cause in enumerate(causes, 1))
        return (
            f'{reached}, expected at least {self.target:g}: the model cannot learn these images by heart, so that a '
            f'longer training would not help. Usual causes, the likeliest first: {listed}'
        )

    def raise_if_failed(self) -> None:
        """Raise an error with the verdict unless the target was reached.

        Raises:
            UsageError: The score is below the target.
        """
        if not self.passed:
            raise UsageError(self.verdict)


def overfit(
    cfg: Config,
    images: int = 8,
    target: float = 0.9,
    max_epochs: int = 300,
    work_dir: str | Path | None = None,
    seed: int = 0,
    lr: float | None = None,
) -> OverfitResult:
    """Train a model on a few images of its training set until it knows them by heart.

    A model that cannot do that will not learn the whole set either, and the search for the mistake takes minutes
    instead of hours. The images show as many classes as possible; the same ones are chosen every time. Random
    augmentation and regularisation are off (:func:`~mmdefocus.apis.overfit_config.overfit_config`).

    The random numbers of this process continue afterwards as if nothing had happened.

    Args:
        cfg: Config of a training. It does not change.
        images: Number of images, at least 1, or 2 for a classifier.
        target: AP of the boxes (COCO), or accuracy, above 0 and at most 1, that is expected.
        max_epochs: Largest number of passes over the images; ten pass between two evaluations.
        work_dir: Folder in which ``overfit`` gets config, log and pictures; None for ``work_dir`` of the config.
        seed: Seed of the weights and of the order of the images.
        lr: Learning rate; None for that of the config, but at most 1e-3 for optimisers of the Adam family.

    Raises:
        UsageError: An argument is out of range, the config is not one of a detector or a classifier, or the training
            set has no image with an object.
    """
    scope = task_scope(cfg)
    least = 2 if scope == 'mmpretrain' else 1
    if images < least:
        raise UsageError(f'overfit must be a number of images of at least {least}, got {images}; raise it')
    if not 0 < target <= 1:
        raise UsageError(f'target must be above 0 and at most 1, got {target}; correct it')
    if max_epochs < PASSES_PER_EPOCH:
        raise UsageError(f'max_epochs must be at least {PASSES_PER_EPOCH}, got {max_epochs}; raise it')
    folder = work_dir if work_dir is not None else cfg.get('work_dir')
    if folder is None:
        raise UsageError('overfit needs a folder for its log and pictures, got None; name one with work_dir')
    out = Path(folder) / 'overfit'
    import_quietly('mmdet.datasets', 'mmpretrain.datasets')
    entries = _read_entries(build_training_set(cfg))
    labels = [_labels(entry) for entry in entries]
    chosen = choose_images(labels, [len(entry.get('instances', [])) for entry in entries], images)
    if not chosen:
        raise UsageError(f'the training set has {len(entries)} images, none of them with an object; add boxes')
    if least == 2 and len(set().union(*(labels[index] for index in chosen))) < 2:
        raise UsageError(
            'a classifier learns to tell at least two classes apart, and the training set has one; add one'
        )
    own = overfit_config(copy.deepcopy(cfg), chosen, target, max_epochs, str(out), seed, lr)
    before = random_state()
    try:
        runner = build_runner(own)
        runner.train()
        boxes = _resized_boxes(runner)
        draw_images(runner, out)
    finally:
        restore_random_state(before)
    history = runner.message_hub.get_scalar(f'val/{METRICS[scope]}').data[0]
    score = float(history[-1]) / (100 if scope == 'mmpretrain' else 1)
    most = cfg.model.get('test_cfg') or {}
    return OverfitResult(
        score=score,
        metric=METRICS[scope],
        epochs=runner.epoch * PASSES_PER_EPOCH,
        passed=score >= target - 1e-6,
        images=tuple(str(entries[index].get('img_path', f'image {index}')) for index in chosen),
        work_dir=out,
        target=target,
        objects=sum(len(one) for one in boxes) if scope == 'mmdet' else len(chosen),
        tiny=sum(int((one.min(1) < _TINY).sum()) for one in boxes if len(one)),
        most_objects=max((len(one) for one in boxes), default=1),
        most_predictions=most.get('max_per_img') or (most.get('rcnn') or {}).get('max_per_img'),
        lr=own.optim_wrapper.optimizer.lr,
    )


def _read_entries(dataset: Any) -> list[dict[str, Any]]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def _labels(entry: dict[str, Any]) -> set[int]:
    """Return the labels of an image, without those of objects that are ignored."""
    if 'instances' in entry:
        return {one['bbox_label'] for one in entry['instances'] if not one.get('ignore_flag')}
    return set(np.atleast_1d(entry['gt_label']).tolist())


def _resized_boxes(runner: Runner) -> list[np.ndarray]:
    """Return widths and heights of the boxes of every image as the model sees them, (N, 2) in pixels each."""
    dataset = runner.train_dataloader.dataset.dataset
    sizes = []
    for index in range(len(dataset)):
        truth = getattr(dataset[index]['data_samples'], 'gt_instances', None)
        if truth is not None and 'bboxes' in truth:
            boxes = torch.as_tensor(getattr(truth.bboxes, 'tensor', truth.bboxes))
            sizes.append((boxes[:, 2:] - boxes[:, :2]).numpy())
    return sizes
