"""Files with everything that repeats one training step. Reading one runs no code."""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmdefocus.ops.backends import ENVIRONMENT_VARIABLE

from .errors import SetupError
from .plain_batch import stored, tensors_of, to_plain
from .safe_writing import open_safely
from .training_step import TrainingStep

FORMAT = 1
_PACKAGES = ('mmdefocus', 'torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'timm')


def capture_step(
    model: nn.Module, cfg: Config, step: TrainingStep, max_bytes: int, **facts: Any
) -> tuple[dict[str, Any], list[str]]:
    """Collect what repeats a step.

    The micro-batch goes first, because nothing else can replace it; the weights can come from a checkpoint. What does
    not fit is left out.

    Args:
        model: Model without a wrapper for several processes.
        cfg: Config of the training.
        step: Step; the buffers are taken from it.
        max_bytes: Limit for the sum of micro-batch and model.
        facts: Plain values to be stored as they are.

    Returns:
        The content of a file, and descriptions of what is left out.

    Raises:
        TypeError: The batch holds an object of an unknown class.
    """
    left_out = []
    names = [name for name, _ in model.named_buffers()]
    weights = dict(model.named_parameters())
    buffers = dict(zip(names, step.buffers, strict=True))
    size = _bytes([step.args, step.kwargs])
    batch = None
    if size <= max_bytes:
        batch = dict(args=to_plain(step.args), kwargs=to_plain(step.kwargs))
        max_bytes -= size
    else:
        left_out.append(f'the micro-batch ({size:,} bytes)')
    size = _bytes([weights, buffers])
    parts = None
    if size <= max_bytes:
        parts = {
            part: {name: stored(x) for name, x in tensors.items()}
            for part, tensors in (('parameters', weights), ('buffers', buffers))
        }
    else:
        left_out.append(f'the model ({size:,} bytes)')
    content = dict(
        format=FORMAT,
        **facts,
        iteration=step.iteration,
        epoch=step.epoch,
        images=step.images,
        losses={name: stored(value) for name, value in step.losses.items()},
        batch=batch,
        model=parts,
        attributes=module_attributes(model),
        frozen=[name for name, parameter in weights.items() if not parameter.requires_grad],
        config=_plain_config(cfg.to_dict()),
        random=step.random,
        autocast=step.autocast,
        loss_divisor=step.loss_divisor,
        loss_scale=1.0 if step.loss_scale is None else float(step.loss_scale),
        device=str(next(iter(weights.values())).device),
        settings=numeric_settings(),
        versions=versions(),
        left_out=left_out,
    )
    return content, left_out


def write_capture(content: Mapping[str, Any], path: Path) -> None:
    """Write a capture so that the file is either whole or missing.

    Raises:
        OSError: The file cannot be written.
        RuntimeError: Likewise, from PyTorch's writer.
    """
    with open_safely(path) as file:
        torch.save(dict(content), file)


def read_capture(path: Path) -> dict[str, Any]:
    """Read a capture without running code from it.

    Raises:
        SetupError: The file is missing, damaged, or no capture of this format.
    """
    if not path.is_file():
        raise SetupError(f"the capture '{path}' does not exist")
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # the reader raises anything for a damaged file
        reason = str(error).partition('\n')[0]
        raise SetupError(f"'{path}' cannot be read as a capture ({type(error).__name__}: {reason})") from error
    if not isinstance(content, dict) or 'format' not in content or 'batch' not in content:
        raise SetupError(f"'{path}' is not a capture of DefocusFiniteLossHook; expected a file <work_dir>/non_finite/*")
    if content['format'] != FORMAT:
        raise SetupError(
            f"'{path}' has the format {content['format']} and this version of mmdefocus reads {FORMAT}; replay it with "
            f'mmdefocus {content["versions"]["mmdefocus"]}'
        )
    return content


def module_attributes(model: nn.Module) -> dict[str, dict[str, bool | int | float]]:
    """Return the numbers among the attributes of all modules, by module name.

    Hooks change some of them in training, such as the rate of drop path; others are the modes of training and
    evaluation.
    """
    return {
        name: {key: value for key, value in vars(module).items() if type(value) in (bool, int, float) and key[0] != '_'}
        for name, module in model.named_modules()
    }


def numeric_settings() -> dict[str, Any]:
    """Return the settings of PyTorch that change rounding."""
    return dict(
        threads=torch.get_num_threads(),
        float32_matmul_precision=torch.get_float32_matmul_precision(),
        cudnn_allow_tf32=torch.backends.cudnn.allow_tf32,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        cudnn_deterministic=torch.backends.cudnn.deterministic,
        deterministic_algorithms=torch.are_deterministic_algorithms_enabled(),
        operator_backend=os.environ.get(ENVIRONMENT_VARIABLE),
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that this process uses."""
    loaded = {name: getattr(sys.modules.get(name), '__version__', None) for name in _PACKAGES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    found = {name: str(version) for name, version in loaded.items() if version is not None}
    return dict(python=platform.python_version(), platform=platform.platform(), gpu=gpu, **found)


def _bytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors_of(value))


def _plain_config(value: Any) -> Any:
    """Replace the classes and functions in a config by their names, which the registries know."""
    if isinstance(value, Mapping):
        return {str(key): _plain_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            type(value)(map(_plain_config, value)) if type(value) in (list, tuple) else list(map(_plain_config, value))
        )
    if value is None or type(value) in (bool, int, float, str):
        return value
    return getattr(value, '__name__', None) or str(value)
