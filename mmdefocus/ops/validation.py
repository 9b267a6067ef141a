"""Argument checks that all operators share; messages name the argument as the caller knows it."""

from collections.abc import Mapping

import torch
from torch import Tensor

_HALF_TYPES = (torch.float16, torch.bfloat16)
_DTYPES = (*_HALF_TYPES, torch.float32, torch.float64)


def compute_dtype(op: str, tensors: Mapping[str, Tensor | None]) -> torch.dtype:
    """Return the type in which an operator computes: float64 for float64 tensors, else float32.

    Args:
        op: Name of the operator, for messages.
        tensors: Arguments by name; the first one has the type of the result. None is skipped.

    Raises:
        TypeError: An argument is not a tensor, is not of a real floating type, or mixes float64 with other types.
        ValueError: The tensors are on different devices.
    """
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in present.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f'{op}: expected {name} to be a tensor, got {type(tensor).__name__}')
        if tensor.dtype not in _DTYPES:
            raise TypeError(f'{op}: expected {name} as float16, bfloat16, float32 or float64, got {tensor.dtype}')
    first_name, first = next(iter(present.items()))
    for name, tensor in present.items():
        if (tensor.dtype == torch.float64) != (first.dtype == torch.float64):
            raise TypeError(
                f'{op}: {first_name} is {first.dtype} but {name} is {tensor.dtype}; '
                'float64 does not mix with other types, convert all arguments or none'
            )
        if tensor.device != first.device:
            raise ValueError(
                f'{op}: {first_name} is on {first.device} but {name} is on {tensor.device}; move them to one device'
            )
    return torch.float64 if first.dtype == torch.float64 else torch.float32


def check_types(op: str, tensors: Mapping[str, Tensor | None], dtype: torch.dtype) -> None:
    """Raise TypeError unless all tensors, by name, are None or of ``dtype``."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != dtype:
            raise TypeError(f'{op}: expected {name} as {dtype}, got {tensor.dtype}')


def check_rank(op: str, name: str, tensor: Tensor, meaning: str) -> None:
    """Raise ValueError unless ``tensor`` has the dimensions that ``meaning`` lists, e.g. ``(batch, length)``."""
    if tensor.dim() != meaning.count(',') + 1:
        raise ValueError(f'{op}: expected {name} of shape {meaning}, got {tuple(tensor.shape)}')


def check_shape(op: str, name: str, tensor: Tensor | None, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ValueError unless ``tensor`` is None or of ``shape``; ``meaning`` names the dimensions."""
    if tensor is not None and tuple(tensor.shape) != tuple(shape):
        raise ValueError(f'{op}: expected {name} of shape {meaning} = {tuple(shape)}, got {tuple(tensor.shape)}')


def check_state(op: str, A: Tensor) -> None:
    """Raise ValueError where A (channels, state) has no state."""
    if A.shape[1] == 0:
        raise ValueError(f'{op}: expected a state of at least one number, got A of shape {tuple(A.shape)}')
