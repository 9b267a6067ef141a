"""Config of a training that only learns a few images by heart, and the choice of these images."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from .errors import UsageError
from .num_classes import resolve_num_classes

# Settings that reach AP 0.9 with nano detectors (docs/before-training.md has the numbers).
BATCH_SIZE = 4
WARMUP_STEPS = 20
MOST_LEARNING_RATE = 1e-3
PASSES_PER_EPOCH = 10
METRICS = {'mmdet': 'coco/bbox_mAP', 'mmpretrain': 'accuracy/top1'}


def overfit_config(
    cfg: Config,
    indices: Sequence[int],
    target: float,
    max_passes: int,
    work_dir: str,
    seed: int = 0,
    lr: float | None = None,
) -> Config:
    """Return a config that trains and evaluates on the same images until the metric reaches a target.

    It has no random augmentation: its pipeline loads as in training and resizes as in testing. It has no mixing of
    images, drop path, average of weights, weight decay, accumulation of gradients or checkpoints. After a short warm-up
    the learning rate is ``lr``, or that of the recipe, but at most 1e-3 for optimisers of the Adam family. It falls as
    a cosine until the last pass.

    Args:
        cfg: Config of a training on one data set, with a validation pipeline.
        indices: Positions of the images in the unfiltered training set.
        target: AP of the boxes, or accuracy, from 0 to 1.
        max_passes: Largest number of passes over the images; an epoch has ten, and an evaluation.
        work_dir: Folder of logs.
        seed: Seed of weights and order.
        lr: Learning rate; None for that of the recipe.

    Raises:
        UsageError: The config has no training set, several ones, or no validation pipeline.
    """
    cfg = copy.deepcopy(cfg)
    scope = task_scope(cfg)
    dataset = dict(training_set(cfg), indices=list(indices))
    dataset.pop('filter_cfg', None)
    testing = validation_pipeline(cfg)
    loader = dict(num_workers=0, persistent_workers=False, pin_memory=False)
    collate = {name: cfg.train_dataloader[name] for name in ('collate_fn',) if name in cfg.train_dataloader}
    cfg.train_dataloader = dict(
        loader,
        **collate,
        batch_size=min(BATCH_SIZE, len(indices)),
        drop_last=False,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            type='RepeatDataset',
            times=PASSES_PER_EPOCH,
            dataset=dict(dataset, pipeline=fixed_pipeline(dataset['pipeline'], testing)),
        ),
    )
    cfg.val_dataloader = dict(
        loader,
        **collate,
        batch_size=len(indices),
        drop_last=False,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(dataset, pipeline=testing, test_mode=True),
    )
    if scope == 'mmdet':
        evaluator = dict(type='DefocusCocoMetric', ann_file=build_training_set(cfg).ann_file, metric='bbox')
    else:
        for name in ('train_dataloader', 'val_dataloader'):
            cfg[name].setdefault('collate_fn', dict(type='default_collate'))
        evaluator = dict(type='Accuracy', topk=1)
    cfg.val_evaluator = evaluator
    for name in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg[name] = None
    cfg.train_cfg = dict(by_epoch=True, max_epochs=max(max_passes // PASSES_PER_EPOCH, 1), val_interval=1)
    cfg.val_cfg = {}
    _train_plainly(cfg, lr)
    steps = cfg.train_cfg.max_epochs * math.ceil(PASSES_PER_EPOCH * len(indices) / cfg.train_dataloader.batch_size)
    warmup = min(WARMUP_STEPS, steps // 2)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
        dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False, begin=warmup, end=steps),
    ]
    _replace_hooks(cfg, METRICS[scope], target if scope == 'mmdet' else 100 * target)
    cfg.update(work_dir=work_dir, randomness=dict(seed=seed), resume=False)
    cfg.auto_scale_lr = None
    cfg.pop('notes', None)  # they are about the whole training
    resolve_num_classes(cfg)
    return cfg


def task_scope(cfg: Config) -> str:
    """Return ``mmdet`` or ``mmpretrain``.

    Raises:
        UsageError: ``default_scope`` is neither.
    """
    scope = cfg.get('default_scope')
    if scope not in METRICS:
        raise UsageError(
            f"default_scope of the config must be 'mmdet' for detectors or 'mmpretrain' for classifiers, got {scope!r};"
            ' correct it in the config'
        )
    return scope


def training_set(cfg: Config) -> dict[str, Any]:
    """Return the settings of the training set, without wrappers that repeat it.

    Raises:
        UsageError: There is none, or a concatenation.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    while isinstance(dataset, Mapping) and 'dataset' in dataset:
        dataset = dataset['dataset']
    if not isinstance(dataset, Mapping) or 'datasets' in dataset:
        found = 'none' if dataset is None else 'a concatenation'
        raise UsageError(
            f'overfitting needs train_dataloader with one data set, got {found}; name one data set in the config'
        )
    return dict(dataset)


def validation_pipeline(cfg: Config) -> list[Any]:
    """Return the transforms of the validation set.

    Raises:
        UsageError: There are none.
    """
    dataset: Any = (cfg.get('val_dataloader') or {}).get('dataset') or {}
    if 'pipeline' not in dataset:
        raise UsageError(
            'overfitting resizes images as val_dataloader.dataset.pipeline does, which the config does not have; add it'
        )
    return list(dataset['pipeline'])


def build_training_set(cfg: Config) -> Any:
    """Build the whole training set, without transforms and filters."""
    dataset = training_set(cfg)
    for name in ('filter_cfg', 'indices'):
        dataset.pop(name, None)
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.build(dict(dataset, pipeline=[]))


def choose_images(labels: Sequence[set[int]], sizes: Sequence[int], count: int) -> list[int]:
    """Choose images that together show as many classes as possible, always the same ones.

    Args:
        labels: Labels of every image; images without any are not chosen.
        sizes: Numbers of objects; of equal images, that with the fewest objects is chosen.
        count: Number of images.

    Returns:
        Positions in ascending order; fewer than ``count`` if there are not more.
    """
    left = [index for index, found in enumerate(labels) if found]
    chosen: list[int] = []
    covered: set[int] = set()
    while left and len(chosen) < count:
        best = max(left, key=lambda index: (len(labels[index] - covered), -sizes[index], -index))
        if not labels[best] - covered and covered:
            covered = set()
            continue
        covered |= labels[best]
        chosen.append(best)
        left.remove(best)
    return sorted(chosen)


def fixed_pipeline(training: Sequence[Any], testing: Sequence[Any]) -> list[Any]:
    """Load and pack as in training, and transform as in testing.

    Args:
        training: Transforms of the training.
        testing: Transforms of the validation.
    """
    loading = [step for step in training if transform_name(step).startswith(('Load', 'DefocusLoad'))]
    between = [step for step in testing if not transform_name(step).startswith(('Load', 'DefocusLoad', 'Pack'))]
    packing = [step for step in training if transform_name(step).startswith('Pack')]
    return [*loading, *between, *packing]


def transform_name(step: Any) -> str:
    """Return the name of a transform without its scope."""
    kind = step.get('type')
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]


def _train_plainly(cfg: Config, lr: float | None) -> None:
    wrapper = cfg.optim_wrapper
    wrapper.pop('accumulative_counts', None)
    optimizer = wrapper.optimizer
    if 'weight_decay' in optimizer:
        optimizer.weight_decay = 0.0
    if lr is not None:
        optimizer.lr = lr
    elif str(optimizer.type).rpartition('.')[2].startswith('Adam'):
        optimizer.lr = min(optimizer.lr, MOST_LEARNING_RATE)
    model = cfg.model
    if 'drop_path_rate' in model.get('backbone', {}):
        model.backbone.drop_path_rate = 0.0
    if task_scope(cfg) == 'mmpretrain' and model.get('train_cfg'):
        model.train_cfg.pop('augments', None)
    for preprocessor in (cfg.get('data_preprocessor'), model.get('data_preprocessor')):
        if preprocessor:
            preprocessor.pop('batch_augments', None)


def _replace_hooks(cfg: Config, metric: str, target: float) -> None:
    hooks = cfg.setdefault('default_hooks', {})
    for name in ('ema', 'drop_path', 'visualization', 'over_focus'):
        hooks.pop(name, None)
    hooks.checkpoint = None
    hooks.logger = dict(type='LoggerHook', interval=10**9)  # at the end of an epoch
    hooks.early_stopping = dict(
        type='EarlyStoppingHook',
        monitor=metric,
        rule='greater',
        stopping_threshold=target - 1e-6,  # the hook compares with >
        patience=max(cfg.train_cfg.max_epochs, 1),
        strict=True,
    )
    cfg.custom_hooks = []
