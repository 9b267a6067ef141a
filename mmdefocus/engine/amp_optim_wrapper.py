"""Mixed precision in training, on GPUs and on CPUs."""

import logging
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from .cpu_bfloat16 import NO_BFLOAT16, cpu_has_bfloat16
from .float32_predictions import keep_predictions_in_float32


@OPTIM_WRAPPERS.register_module()
class DefocusAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper``, which also trains on CPUs.

    On a CPU, autocast computes in bfloat16, and the loss is not scaled: bfloat16 has the range of float32. On all
    devices, parameters, gradients and the state of the optimiser keep their type, and predictions are float32
    (:func:`~mmdefocus.engine.float32_predictions.keep_predictions_in_float32`).

    The tools put it in the place of ``AmpOptimWrapper`` (:func:`choose_precision`).

    Args:
        loss_scale: As for ``AmpOptimWrapper``. Without effect on a CPU.
        dtype: As for ``AmpOptimWrapper``. On a CPU None or ``'bfloat16'``.
        use_fsdp: As for ``AmpOptimWrapper``. Without effect on a CPU.
        **kwargs: As for ``OptimWrapper``.

    Raises:
        ValueError: Another ``dtype`` on a CPU.
    """

    def __init__(
        self,
        loss_scale: str | float | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        self._prepared: nn.Module | None = None
        if get_device() != 'cpu':
            super().__init__(loss_scale, dtype, use_fsdp, **kwargs)
            return
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(f'mixed precision on a CPU computes in bfloat16, got dtype={dtype!r}; leave dtype out')
        OptimWrapper.__init__(self, **kwargs)  # the constructor of AmpOptimWrapper refuses CPUs
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16

    def state_dict(self) -> dict:
        """Return the state of the optimiser and, if the loss is scaled, of its scale."""
        state = super().state_dict()
        if not self.loss_scaler.is_enabled():
            del state['loss_scaler']  # which a GPU could not load
        return state

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the loss in mixed precision inside the block."""
        if model is not self._prepared:
            keep_predictions_in_float32(model)
            self._prepared = model
        with super().optim_context(model):
            yield


def choose_precision(settings: MutableMapping[str, Any]) -> None:
    """Adapt the settings of an optimiser wrapper with mixed precision to this machine, in place.

    MMEngine's ``AmpOptimWrapper`` becomes :class:`DefocusAmpOptimWrapper`. On a CPU, the type is bfloat16; without
    instructions for it, the training is in float32, with a warning.

    Args:
        settings: ``optim_wrapper`` of a config. Other wrappers stay as they are.
    """
    if not _is_mixed(settings):
        return
    settings['type'] = DefocusAmpOptimWrapper.__name__
    if get_device() != 'cpu':
        return
    if cpu_has_bfloat16():
        settings['dtype'] = 'bfloat16'
        return
    print_log(NO_BFLOAT16, logger='current', level=logging.WARNING)
    settings['type'] = OptimWrapper.__name__
    for name in ('dtype', 'loss_scale', 'use_fsdp'):
        settings.pop(name, None)


def describe_precision(settings: Mapping[str, Any]) -> str:
    """Return the precision of a training with these settings of its optimiser wrapper, such as ``'float32'``."""
    return f'{settings.get("dtype") or "float16"} (mixed precision)' if _is_mixed(settings) else 'float32'


def _is_mixed(settings: Mapping[str, Any]) -> bool:
    kind = settings.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2] in (AmpOptimWrapper.__name__, DefocusAmpOptimWrapper.__name__)
