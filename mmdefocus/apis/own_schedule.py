"""The schedule of a config, scaled to another number of epochs; in place."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from .errors import UsageError

# A warm-up counted in iterations may take this part of a training.
_WARM_UP = 0.1
# Up to this number of epochs, each ends with an evaluation.
_EVALUATIONS = 20
_LENGTHS = ('begin', 'end', 'T_max', 'warmup', 'cooldown')


def set_epochs(cfg: Config, epochs: int | None, images: int | None, notes: list[str]) -> None:
    """Train for a number of epochs: scale milestones, cosines and warm-ups, and set the interval of evaluations.

    Args:
        cfg: Config.
        epochs: Epochs; None keeps those of the config.
        images: Training images, to shorten warm-ups that are counted in iterations; None if not known.
        notes: List to which decisions are added.

    Raises:
        UsageError: The training counts iterations.
    """
    former = cfg.train_cfg.get('max_epochs')
    if former is None or cfg.train_cfg.get('by_epoch') is False:
        if epochs is not None:
            raise UsageError(
                'epochs has no effect: the training of the config counts iterations (train_cfg.max_iters); set '
                'cfg_options={"train_cfg.max_iters": N}, or name a config that counts epochs'
            )
        return
    epochs = former if epochs is None else epochs
    interval = 1 if epochs <= _EVALUATIONS else math.ceil(epochs / _EVALUATIONS)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=interval)
    for name in ('val_begin', 'dynamic_intervals'):
        cfg.train_cfg.pop(name, None)
    steps = math.ceil(images / cfg.train_dataloader.get('batch_size', 1)) * epochs if images else None
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, Mapping) else schedulers:
        if scheduler.get('by_epoch', True):
            _scale(scheduler, former, epochs, notes)
        elif steps is not None:
            _shorten_warm_up(scheduler, steps, notes)
    for hook in [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]:
        if hook and 'switch_epoch' in hook:
            hook['switch_epoch'] = round(hook['switch_epoch'] * epochs / former)


def _scale(scheduler: Any, former: int, epochs: int, notes: list[str]) -> None:
    if former == epochs:
        return
    factor = epochs / former
    for name in _LENGTHS:
        if isinstance(scheduler.get(name), int | float) and scheduler[name] < 10**8:
            scheduler[name] = round(scheduler[name] * factor)
    if 'T_max' in scheduler:
        scheduler['T_max'] = max(scheduler['T_max'], 1)
    if scheduler.get('end') is not None and scheduler['end'] <= scheduler.get('begin', 0):
        scheduler['end'] = scheduler.get('begin', 0) + 1
    if 'milestones' in scheduler:
        # The last epoch at the latest, so that every step of the recipe takes place.
        scheduler['milestones'] = [
            min(max(round(one * factor), 1), max(epochs - 1, 1)) for one in scheduler['milestones']
        ]
        if epochs == 1:
            notes.append('The learning rate does not fall at milestones: the training has one epoch.')
    if 'step_size' in scheduler:
        scheduler['step_size'] = max(round(scheduler['step_size'] * factor), 1)
    if scheduler.get('warmup') == 0:
        notes.append(f'The training of {epochs} epochs has no warm-up: in proportion, it is less than half an epoch.')


def _shorten_warm_up(scheduler: Any, steps: int, notes: list[str]) -> None:
    limit = max(round(steps * _WARM_UP), 1)
    length = scheduler.get('end')
    if scheduler.get('type') in ('LinearLR', 'ConstantLR') and isinstance(length, int) and length > limit:
        scheduler['end'] = limit
        notes.append(
            f'The warm-up takes {limit} steps, a tenth of the training, in place of the {length} steps of the recipe.'
        )
