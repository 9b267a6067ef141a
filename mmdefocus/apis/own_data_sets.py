"""Data sets, evaluators and numbers of classes of a config, replaced by those of prepared data; in place."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdefocus.datasets.prepared.source_data import PreparedData, PreparedSplit

from .errors import UsageError

_TASKS = dict(mmdet='detection', mmpretrain='classification')
# Settings of a data set that say where its data are.
_PLACES = (
    'ann_file', 'data_root', 'data_prefix', 'metainfo', 'classes', 'split', 'indices', 'backend_args', 'with_label',
    'allow_missing_categories', 'size', 'download', 'extensions',
)  # fmt: skip


def training_images(cfg: Config, data: PreparedData) -> int:
    """Return the number of images in an epoch of a training on ``data``."""
    split = data.splits['train']
    return split.images - split.empty_images * _leaves_out_empty(cfg.train_dataloader.dataset)


def _leaves_out_empty(dataset: Mapping[str, Any]) -> bool:
    dataset = dataset.get('dataset', dataset)
    return bool((dataset.get('filter_cfg') or {}).get('filter_empty_gt'))


def set_data(cfg: Config, data: PreparedData, notes: list[str]) -> None:
    """Make all data loaders read ``data`` and all evaluators compare with them.

    The test set is the split ``test``, or ``val`` where there is none.

    Raises:
        UsageError: The config is for another task, or needs masks, which the data do not have.
    """
    scope = cfg.get('default_scope')
    if _TASKS.get(scope) != data.task:
        raise UsageError(
            f'{data.root} has data for {data.task}, and the config is for {_TASKS.get(scope, scope)}; name a model for '
            f'{data.task}, with {"Detector" if data.task == "detection" else "Classifier"}'
        )
    metrics = _as_list((cfg.val_evaluator if isinstance(cfg.val_evaluator, Mapping) else {}).get('metric', []))
    if data.task == 'detection' and 'segm' in metrics and not data.has_masks:
        raise UsageError(
            f'the config trains masks, and {data.root} has boxes without masks; name a model without masks, such as '
            'defocus_mamba_base, or add masks to all boxes'
        )
    missing = [name for name in ('train', 'val') if name not in data.splits]
    if missing:
        raise UsageError(f'the data in {data.root} must have the splits train and val, got {", ".join(data.splits)}')
    for name in ('train', 'val', 'test'):
        split = data.splits.get(name) or data.splits['val']
        source = cfg[f'{name}_dataloader'] if name != 'test' else cfg.val_dataloader
        cfg[f'{name}_dataloader'] = read_split(source, data, split, notes if name == 'train' else [])
        if name != 'train':
            cfg[f'{name}_evaluator'] = evaluate_split(cfg.val_evaluator, data, split)
    cfg.val_cfg = cfg.get('val_cfg') or {}
    cfg.test_cfg = cfg.get('test_cfg') or copy.deepcopy(cfg.val_cfg)
    if cfg.test_cfg.get('type') == 'ValLoop':
        cfg.test_cfg.type = 'TestLoop'


def read_split(
    loader: Mapping[str, Any], data: PreparedData, split: PreparedSplit, notes: list[str] | None = None
) -> ConfigDict:
    """Return a copy of a data loader that reads a split.

    Raises:
        UsageError: The loader mixes several data sets.
    """
    changed = ConfigDict(copy.deepcopy(dict(loader)))
    notes = [] if notes is None else notes
    changed.dataset = _with_split(changed.dataset, data, split, notes)
    if changed.get('sampler', {}).get('type') in ('RepeatAugSampler', 'ClassAwareSampler', 'MultiSourceSampler'):
        notes.append(f'The images are drawn by DefaultSampler, each once per epoch, not by {changed.sampler.type}.')
        changed.sampler = ConfigDict(type='DefaultSampler', shuffle=True)
    return changed


def _with_split(dataset: Any, data: PreparedData, split: PreparedSplit, notes: list[str]) -> ConfigDict:
    kind = str(dataset.get('type')).rpartition('.')[2]
    if 'datasets' in dataset:
        raise UsageError(
            f'the config trains on several data sets ({kind}), and your data are one; name a config with one data set'
        )
    if 'dataset' in dataset:
        inner = _with_split(dataset['dataset'], data, split, notes)
        if kind == 'MultiImageMixDataset':  # it has the pipeline
            return ConfigDict(dict(dataset, dataset=inner))
        notes.append(f'{kind} of the config is left out: an epoch has every image once.')
        return inner
    kept = {key: value for key, value in dataset.items() if key not in _PLACES}
    if data.task == 'classification':
        if not any('LoadImage' in str(step.get('type')) for step in kept.get('pipeline', [])):
            # The data set of the config holds its images in memory.
            kept['pipeline'] = [dict(type='LoadImageFromFile'), *kept.get('pipeline', [])]
        return ConfigDict(
            dict(
                kept,
                type='DefocusImageFolder',
                data_root='',
                data_prefix=str(split.image_root),
                ann_file=str(split.ann_file),
                classes=list(data.classes),
            )
        )
    filters = kept.get('filter_cfg')
    if filters and filters.get('min_size', 0) > 1:
        notes.append(f'Images smaller than {filters["min_size"]} pixels are trained on, too (filter_cfg.min_size).')
        kept['filter_cfg'] = dict(filters, min_size=1)
    if split.empty_images and _leaves_out_empty(kept):
        notes.append(
            f'{split.empty_images} of {split.images} training images have no box and are left out, as in the recipe; '
            'train_dataloader.dataset.filter_cfg.filter_empty_gt=False in cfg_options (--cfg-options) keeps them.'
        )
    return ConfigDict(
        dict(
            kept,
            type='DefocusCocoDataset',
            data_root='',
            metainfo=dict(classes=list(data.classes)),
            ann_file=str(split.ann_file),
            data_prefix=dict(img=str(split.image_root)),
        )
    )


def evaluate_split(evaluator: Any, data: PreparedData, split: PreparedSplit) -> Any:
    """Return a copy of an evaluator, or of a list of them, that compares with a split."""
    if isinstance(evaluator, list | tuple):
        return [evaluate_split(one, data, split) for one in evaluator]
    changed = ConfigDict(copy.deepcopy(dict(evaluator)))
    if data.task == 'detection':
        if str(changed.get('type')).rpartition('.')[2] not in ('CocoMetric', 'DefocusCocoMetric'):
            raise UsageError(f'own data need DefocusCocoMetric as evaluator, got {changed.get("type")!r}; change it')
        changed.update(type='DefocusCocoMetric', ann_file=str(split.ann_file))
        changed.setdefault('classwise', True)
    elif 'topk' in changed:
        fitting = [k for k in _as_list(changed.topk) if k < len(data.classes)]
        changed.topk = tuple(fitting) or 1
    return changed


def set_classes(cfg: Config, number: int) -> None:
    """Set the number of classes of all heads and of the data preprocessor.

    Raises:
        UsageError: The model has no number of classes.
    """
    found = _set_number(cfg.model, number)
    if cfg.get('data_preprocessor') and 'num_classes' in cfg.data_preprocessor:
        cfg.data_preprocessor.num_classes = number
    if not found:
        raise UsageError('the model of the config has no num_classes, which the data determine; name another config')


def _set_number(node: Any, number: int) -> int:
    found = 0
    if isinstance(node, Mapping):
        if 'num_classes' in node:
            node['num_classes'] = number  # type: ignore[index]
            found += 1
        found += sum(_set_number(child, number) for child in node.values())
    elif isinstance(node, list | tuple):
        found += sum(_set_number(child, number) for child in node)
    return found


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
