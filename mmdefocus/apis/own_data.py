"""The config of a training on a user's own data, made from any config."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mmdefocus.datasets.prepared.source_data import PreparedData

from .errors import UsageError
from .own_data_sets import set_classes, set_data, training_images
from .own_image_size import set_image_size
from .own_schedule import set_epochs

# Images of up to this side load faster than they move from a worker process.
_SMALL = 320
_BEST = dict(mmdet='coco/bbox_mAP', mmpretrain='accuracy/top1')


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a training. None keeps the setting of the config.

    Attributes:
        epochs: Passes over the training images; the schedule is scaled.
        batch_size: Images per step and process.
        lr: Learning rate for this batch size. None: that of the config, scaled by the number of images per step.
        image_size: Longest side of the images in pixels (detection), or their side (classification).
        seed: Seed of all random numbers; None: 0 for own data.
        workers: Processes that load images; None: 0 on a CPU with small images, otherwise up to 4, for own data.
        work_dir: Folder for checkpoints and logs.
        load_from: Checkpoint whose weights the training starts from: path or address.
    """

    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    image_size: int | None = None
    seed: int | None = None
    workers: int | None = None
    work_dir: str | None = None
    load_from: str | None = None

    def __post_init__(self) -> None:
        for name, least in dict(epochs=1, batch_size=1, image_size=8, workers=0, seed=0).items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UsageError(f'{name} must be a whole number of at least {least}, got {value!r}; correct it')
        if self.lr is not None and not (isinstance(self.lr, int | float) and 0 < self.lr < math.inf):
            raise UsageError(f'lr must be a positive number, got {self.lr!r}; correct it')


def own_data_config(cfg: Config, data: PreparedData | None, options: TrainingOptions) -> Config:
    """Make the config of a training on a user's own data.

    Args:
        cfg: Config of a recipe. It is not changed.
        data: Prepared data. None keeps those of the config, and all that ``options`` do not name.
        options: Options of the training.

    Returns:
        Config without ``_base_`` for ``tools/train.py``. Its ``notes`` say what was decided, one sentence each.

    Raises:
        UsageError: The data do not fit the task of the config, or an option would have no effect.
    """
    cfg = Config(cfg.to_dict())  # without the parts that a config may share among its settings
    notes: list[str] = [] if data is None else list(data.notes)
    for name in ('train_dataloader', 'val_dataloader', 'train_cfg', 'optim_wrapper', 'val_evaluator'):
        if not cfg.get(name):
            raise UsageError(f'a training needs {name}, which the config does not have; name another config')
    if data is not None:
        set_data(cfg, data, notes)
        set_classes(cfg, len(data.classes))
    if options.image_size is not None:
        set_image_size(cfg, options.image_size)
    recipe_batch = cfg.train_dataloader.get('batch_size', 1)
    _set_batches(cfg, options)
    _set_workers(cfg, options, data is not None)
    if data is not None or options.lr is not None or options.batch_size is not None:
        _set_learning_rate(cfg, options, recipe_batch, notes)
    if data is not None or options.epochs is not None:
        set_epochs(cfg, options.epochs, None if data is None else training_images(cfg, data), notes)
    _set_runtime(cfg, options, data is not None)
    if data is not None:
        _set_hooks(cfg, data)
        cfg.notes = notes
    return cfg


def _set_batches(cfg: Config, options: TrainingOptions) -> None:
    if options.batch_size is None:
        return
    if 'batch_size' not in cfg.train_dataloader:
        raise UsageError('batch_size has no effect: train_dataloader of the config has none; set its batch_sampler')
    for loader in _loaders(cfg):
        loader.batch_size = options.batch_size


def _set_workers(cfg: Config, options: TrainingOptions, own: bool) -> None:
    workers = options.workers
    if workers is None:
        if not own:
            return
        small = _largest_scale(cfg) <= _SMALL
        workers = 0 if small and not torch.cuda.is_available() else min(4, os.cpu_count() or 1)
    for loader in _loaders(cfg):
        loader.num_workers = workers
        loader.persistent_workers = workers > 0
        if workers == 0:
            loader.pop('prefetch_factor', None)


def _loaders(cfg: Config) -> list[ConfigDict]:
    return [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test') if cfg.get(f'{split}_dataloader')]


def _set_learning_rate(cfg: Config, options: TrainingOptions, recipe_batch: int, notes: list[str]) -> None:
    optimizer = cfg.optim_wrapper.get('optimizer')
    scaling = cfg.get('auto_scale_lr') or ConfigDict()
    if options.lr is not None:
        if not optimizer or 'lr' not in optimizer:
            raise UsageError('lr has no effect: optim_wrapper.optimizer of the config has no lr')
        optimizer.lr = options.lr
        cfg.auto_scale_lr = dict(scaling, enable=False) if scaling else None
        return
    # The recipe's own batch is the one that its rate was chosen for, where it does not say otherwise.
    base = scaling.get('base_batch_size') or recipe_batch
    cfg.auto_scale_lr = dict(base_batch_size=base, enable=True)
    batch = cfg.train_dataloader.get('batch_size')
    if optimizer and 'lr' in optimizer and batch and batch != base:
        notes.append(
            f'The learning rate of the recipe, {optimizer.lr:g}, is for {base} images per step; with {batch} images '
            f'per step and one process it is {optimizer.lr * batch / base:g}.'
        )


def _set_runtime(cfg: Config, options: TrainingOptions, own: bool) -> None:
    if own or options.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=options.seed or 0)
    if options.work_dir is not None:
        cfg.work_dir = options.work_dir
    cfg.resume = False
    if options.load_from is not None:
        cfg.load_from = options.load_from
        backbone = cfg.model.get('backbone')
        if backbone is not None and backbone.get('init_cfg'):
            backbone.init_cfg = None


def _set_hooks(cfg: Config, data: PreparedData) -> None:
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.setdefault('peak_memory', dict(type='DefocusPeakMemoryHook'))
    hooks.setdefault('checkpoint', dict(type='DefocusCheckpointHook'))
    hooks.checkpoint.update(
        interval=1, by_epoch=True, save_last=True, max_keep_ckpts=1, save_best=_BEST[cfg.default_scope], rule='greater'
    )
    if hooks.get('logger'):
        steps = math.ceil(training_images(cfg, data) / cfg.train_dataloader.get('batch_size', 1))
        hooks.logger.interval = max(1, min(hooks.logger.get('interval', 50), steps // 2))


def _largest_scale(cfg: Config) -> int:
    """Return the longest side to which the pipelines of the training resize."""
    numbers = [number for step in steps_of(cfg.train_dataloader) for number in _numbers(step)]
    return max(numbers, default=_SMALL + 1)


def steps_of(node: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all dictionaries with a type below a node of a config, such as the steps of pipelines."""
    if isinstance(node, Mapping):
        if 'type' in node:
            yield node
        for child in node.values():
            yield from steps_of(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from steps_of(child)


def _numbers(step: Mapping[str, Any]) -> Iterator[int]:
    for key in ('scale', 'scales'):
        pending = [step.get(key)]
        while pending:
            value = pending.pop()
            if isinstance(value, list | tuple):
                pending += value
            elif isinstance(value, int):
                yield value
