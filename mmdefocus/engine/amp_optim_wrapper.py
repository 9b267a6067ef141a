"""Mixed precision in training, on GPUs and on CPUs."""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from .cpu_bfloat16 import NO_BFLOAT16, cpu_has_bfloat16
from .float32_predictions import keep_predictions_in_float32

FLOAT32_ON_CPUS = (
    'Without a GPU the training is in float32, not in the mixed precision of the config; --amp trains in bfloat16 on '
    'CPUs that compute in it'
)


@OPTIM_WRAPPERS.register_module()
class DefocusAmpOptimWrapper(AmpOptimWrapper):
    """MMEngine's ``AmpOptimWrapper``, which also trains on CPUs.

    On a CPU, autocast computes in bfloat16, and the loss is not scaled: bfloat16 has the range of float32. On all
    devices, parameters, gradients and the state of the optimiser keep their type, and predictions are float32
    (:func:`~mmdefocus.engine.float32_predictions.keep_predictions_in_float32`).

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


def choose_precision(settings: MutableMapping[str, Any]) -> str | None:
    """Adapt the settings of an optimiser wrapper with mixed precision to a machine without a GPU, in place.

    :class:`DefocusAmpOptimWrapper` gets the type bfloat16; on a CPU without instructions for it, the training is in
    float32. So it is with MMEngine's ``AmpOptimWrapper``, the precision of recipes for GPUs.

    Args:
        settings: ``optim_wrapper`` of a config. Other wrappers stay as they are, and so do all where there is a GPU.

    Returns:
        Why the training is not in mixed precision, for a warning; None if the settings are followed.
    """
    if get_device() != 'cpu' or not _is_mixed(settings):
        return None
    is_of_gpus = _name(settings) == AmpOptimWrapper.__name__
    if cpu_has_bfloat16() and not is_of_gpus:
        settings['dtype'] = 'bfloat16'
        return None
    settings['type'] = OptimWrapper.__name__
    for name in ('dtype', 'loss_scale', 'use_fsdp'):
        settings.pop(name, None)
    return FLOAT32_ON_CPUS if is_of_gpus else NO_BFLOAT16


def describe_precision(settings: Mapping[str, Any]) -> str:
    """Return the precision of a training with these settings of its optimiser wrapper, such as ``'float32'``."""
    return f'{settings.get("dtype") or "float16"} (mixed precision)' if _is_mixed(settings) else 'float32'


def _is_mixed(settings: Mapping[str, Any]) -> bool:
    return _name(settings) in (AmpOptimWrapper.__name__, DefocusAmpOptimWrapper.__name__)


def _name(settings: Mapping[str, Any]) -> str:
    kind = settings.get('type')
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]
