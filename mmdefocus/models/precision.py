"""Computation in at least float32, independent of autocast and of the dtype of the parameters."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Promote half types to float32 and leave float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def as_operand(tensor: Tensor) -> Tensor:
    """Convert a tensor once that autocast would convert for each product; without autocast, return it as it is."""
    device = tensor.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Return a context that disables autocast; it does nothing on the ``meta`` device, which has no autocast."""
    # torch.compile cannot trace the general check, torch.amp.is_autocast_available.
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)
