"""Run a model in another floating-point type, whatever types its code names."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_CASTS = ('half', 'bfloat16', 'float', 'double')


class FloatsAs(TorchFunctionMode):
    """Context in which functions of PyTorch compute in one floating-point type, and autocast has no effect.

    Detectors name float32 in many places and would mix types otherwise.

    Args:
        dtype: Type.
        device: Device of the model.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._dtype = dtype
        self._device = device.type

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        if getattr(function, '__name__', '') == '__get__':  # attributes, such as dtype and grad
            return function(*args, **(kwargs or {}))
        args, kwargs = tree_map(self._converted, (args, kwargs or {}))
        if getattr(function, '__name__', '') in _CASTS and args and isinstance(args[0], Tensor):
            return args[0].to(self._dtype)
        with torch.autocast(self._device, enabled=False):
            return tree_map(self._converted, function(*args, **kwargs))

    def _converted(self, value: Any) -> Any:
        if isinstance(value, torch.dtype) and value in _FLOATS:
            return self._dtype
        if isinstance(value, Tensor) and value.dtype in _FLOATS and value.dtype != self._dtype:
            return value.to(self._dtype)
        return value
