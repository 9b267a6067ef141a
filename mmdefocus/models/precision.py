"""Computation in at least float32, independent of autocast and of the dtype of the parameters."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Promote half types to float32 and leave float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def operand_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype of ``tensor`` as a factor of a matrix product: that of autocast or, without it, its own."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or device == 'meta' or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Return a context that disables autocast; it does nothing on the ``meta`` device, which has no autocast."""
    # torch.compile cannot trace the general check, torch.amp.is_autocast_available.
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)
