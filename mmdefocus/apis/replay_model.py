"""Build the model of a captured training step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope, registry
from mmengine.utils import import_modules_from_strings
from torch import nn

from mmdefocus.models.checkpoint import read_checkpoint
from mmdefocus.openmmlab import import_quietly
from mmdefocus.ops.backends import ENVIRONMENT_VARIABLE

from .errors import UsageError

TRUSTED = ('mmdefocus', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')


def build_captured_model(capture: dict[str, Any], import_code: bool = False) -> nn.Module:
    """Build the model that a capture's config describes, without its weights.

    Args:
        capture: Content of the file.
        import_code: Import the modules that the config names, and classes by their import path. Without it, only
            registered classes of mmdefocus and OpenMMLab are used, because the file may come from someone else.

    Raises:
        UsageError: The config has no model, or one that cannot be built.
    """
    config = ConfigDict(capture['config'])
    if not isinstance(config.get('model'), dict):
        raise UsageError('the capture has no config of a model: the training was not built from a config file')
    imports = (config.get('custom_imports') or {}).get('imports', [])
    imports = [imports] if isinstance(imports, str) else list(imports)
    foreign = [name for name in imports if name.partition('.')[0] not in TRUSTED]
    if foreign and not import_code:
        raise UsageError(
            f'the config of the capture imports {", ".join(foreign)}, which may run any code. If you trust the '
            'file and these modules, add --import-code'
        )
    import_quietly('mmdet.datasets', 'mmpretrain.datasets')
    try:
        import_modules_from_strings(imports)
        with DefaultScope.overwrite_default_scope(config.get('default_scope')), _lookup_by_path(import_code):
            if config.get('data_preprocessor') is not None:  # as MMEngine's runner
                config.model.setdefault('data_preprocessor', config.data_preprocessor)
            model = MODELS.build(config.model)
    except Exception as error:  # code of the user builds the model
        raise UsageError(f'the model of the capture cannot be built ({type(error).__name__}: {error})') from error
    return revert_sync_batchnorm(model)


def use_checkpoint(model: nn.Module, capture: dict[str, Any], checkpoint: str | Path) -> None:
    """Replace the captured weights and buffers by those of a checkpoint, as far as it has them.

    Raises:
        CheckpointError: The file cannot be read.
        UsageError: There is no such file, or it lacks a parameter of the model.
    """
    if not Path(checkpoint).is_file():
        raise UsageError(f"checkpoint '{checkpoint}' does not exist")
    weights = read_checkpoint(checkpoint).get('state_dict', {})
    missing = [name for name, _ in model.named_parameters() if name not in weights]
    if missing:
        raise UsageError(
            f"'{checkpoint}' is no checkpoint of the captured model: {len(missing)} parameters are missing, among them "
            f'{missing[0]}'
        )
    capture['model'] = dict(
        parameters={name: weights[name] for name, _ in model.named_parameters()},
        buffers={name: weights.get(name, buffer) for name, buffer in model.named_buffers()},
    )


def load_captured_state(model: nn.Module, capture: dict[str, Any]) -> None:
    """Give a model the weights, buffers and attributes of the captured one.

    Raises:
        UsageError: The model that the config describes has other tensors.
    """
    for part, tensors in (('parameters', model.named_parameters()), ('buffers', model.named_buffers())):
        own, captured = dict(tensors), capture['model'][part]
        different = sorted({*own} ^ {*captured}) or [name for name in own if own[name].shape != captured[name].shape]
        if different:
            raise UsageError(
                f'the model that the config of the capture describes has other {part} than the captured one '
                f'({len(different)}, among them {different[0]}); a hook has changed it, or the installed packages have '
                f'other versions than those of the capture: {capture["versions"]}'
            )
        for name, tensor in own.items():
            tensor.data = captured[name].to(tensor.device, copy=True)
    for name, module in model.named_modules():
        for key, value in capture['attributes'].get(name, {}).items():
            if type(vars(module).get(key)) in (bool, int, float):
                setattr(module, key, value)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in capture['frozen'])


@contextmanager
def numeric_settings_of(capture: dict[str, Any]) -> Iterator[None]:
    """Apply the settings of PyTorch that change rounding, inside the block."""
    settings = capture['settings']
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    flags = torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled,
        benchmark=settings['cudnn_benchmark'],
        deterministic=settings['cudnn_deterministic'],
        allow_tf32=settings['cudnn_allow_tf32'],
    )
    torch.set_num_threads(settings['threads'])
    torch.set_float32_matmul_precision(settings['float32_matmul_precision'])
    torch.use_deterministic_algorithms(settings['deterministic_algorithms'])
    try:
        with flags, _operator_backend(settings['operator_backend']):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def _operator_backend(name: str | None) -> Iterator[None]:
    before = os.environ.get(ENVIRONMENT_VARIABLE)
    if name is not None:
        os.environ[ENVIRONMENT_VARIABLE] = name
    try:
        yield
    finally:
        if name is not None:
            del os.environ[ENVIRONMENT_VARIABLE]
        if before is not None:
            os.environ[ENVIRONMENT_VARIABLE] = before


@contextmanager
def _lookup_by_path(allowed: bool) -> Iterator[None]:
    """Without permission, keep registries from importing a ``type`` that is not registered but an import path."""
    if allowed:
        yield
        return
    lookup = registry.get_object_from_string
    registry.get_object_from_string = lambda path: None
    try:
        yield
    finally:
        registry.get_object_from_string = lookup
