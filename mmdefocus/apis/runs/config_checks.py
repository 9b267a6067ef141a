"""Checks of the settings of a run that MMEngine and PyTorch refuse with an error of their own, or not at all."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import OPTIMIZERS

from mmdefocus.apis.errors import UsageError

from .failed_settings import unregistered

_LOOPS = ('None', 'EpochBasedTrainLoop', 'IterBasedTrainLoop')


def check_settings(cfg: Config) -> None:
    """Check model, data loaders, loops and optimiser of a run.

    Args:
        cfg: Config with the options of the command line.

    Raises:
        UsageError: A setting is missing or outside its range. The message names it.
    """
    check_model(cfg)
    _check_together(cfg, 'train_dataloader', 'train_cfg', 'optim_wrapper')
    for split in ('val', 'test'):
        _check_together(cfg, f'{split}_dataloader', f'{split}_cfg', f'{split}_evaluator')
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None:
            _check_dataloader(f'{split}_dataloader', cfg[f'{split}_dataloader'])
    if cfg.get('train_cfg') is not None:
        _check_loop(cfg.train_cfg)
        _check_lengths(cfg.train_cfg)
    if cfg.get('optim_wrapper') is not None:
        _check_optimizer(cfg)


def check_model(cfg: Config) -> None:
    """Raise ``UsageError`` unless the config has a model."""
    model = cfg.get('model')
    if not isinstance(model, Mapping) or 'type' not in model:
        raise UsageError(
            f'the config needs model=dict(type=..., ...), got {model!r}; inherit a config that has a model with _base_'
        )


def _check_together(cfg: Config, *names: str) -> None:
    present = [name for name in names if cfg.get(name) is not None]
    absent = [name for name in names if name not in present]
    if present and absent:
        raise UsageError(
            f'the config has {" and ".join(present)}, but no {" and ".join(absent)}; they belong together: set '
            f'{", ".join(absent)}, or set all of them to None'
        )


def _check_dataloader(name: str, loader: Mapping[str, Any]) -> None:
    _check_dictionary(name, loader)
    _check_dictionary(f'{name}.dataset', loader.get('dataset'))
    _check_whole(f'{name}.num_workers', loader.get('num_workers', 0), least=0)
    if loader.get('batch_sampler') is None or 'batch_size' in loader:
        _check_whole(f'{name}.batch_size', loader.get('batch_size', 1), least=1)
    if loader.get('persistent_workers') and not loader.get('num_workers'):
        raise UsageError(
            f'{name} has persistent_workers=True, but num_workers={loader.get("num_workers", 0)}; set '
            'persistent_workers=False, or num_workers to at least 1'
        )
    if not {'sampler', 'batch_sampler'} & loader.keys():
        raise UsageError(
            f'{name} has no sampler, which chooses the order of the images; set '
            f"{name}.sampler=dict(type='DefaultSampler', shuffle={name.startswith('train')})"
        )


def _check_loop(train_cfg: Mapping[str, Any]) -> None:
    given = [f'{name}={train_cfg[name]!r}' for name in ('type', 'by_epoch') if name in train_cfg]
    if len(given) != 1:
        raise UsageError(
            f'train_cfg needs either type or by_epoch, which choose the loop, got {" and ".join(given) or "neither"}; '
            'set by_epoch=True to count epochs or by_epoch=False to count iterations, and replace an inherited '
            'train_cfg with dict(_delete_=True, ...)'
        )


def _check_lengths(train_cfg: Mapping[str, Any]) -> None:
    lengths = [name for name in ('max_epochs', 'max_iters') if train_cfg.get(name) is not None]
    for name in (*lengths, 'val_interval'):
        value = train_cfg.get(name, 1)
        # MMEngine takes 12.0, too.
        _check_whole(f'train_cfg.{name}', int(value) if isinstance(value, float) and value % 1 == 0 else value, least=1)
    if len(lengths) != 1 and str(train_cfg.get('type')).removeprefix('Defocus') in _LOOPS:
        given = ' and '.join(f'{name}={train_cfg[name]}' for name in lengths) or 'neither'
        raise UsageError(
            f'train_cfg needs either max_epochs or max_iters, the length of the training, got {given}; remove one, or '
            'set one'
        )


def _check_optimizer(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    _check_dictionary('optim_wrapper', wrapper)
    _check_whole('optim_wrapper.accumulative_counts', wrapper.get('accumulative_counts', 1), least=1)
    if 'optimizer' not in wrapper:  # several optimisers have names of their own
        return
    _check_dictionary('optim_wrapper.optimizer', wrapper.optimizer)
    kind = wrapper.optimizer.get('type')
    with OPTIMIZERS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        if kind is None or (isinstance(kind, str) and registry.get(kind) is None):
            raise UsageError(unregistered('optim_wrapper.optimizer', str(kind), registry))


def _check_dictionary(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f'{name} must be a dictionary, got {value!r}; correct it in the config')


def _check_whole(name: str, value: Any, least: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least:
        raise UsageError(
            f'{name} must be a whole number of at least {least}, got {value!r}; correct it in the config, or with '
            f'--cfg-options {name}={max(least, 1)}'
        )
