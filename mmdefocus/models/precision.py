"""Computation in at least float32, independent of autocast and of the dtype of the parameters."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Promote half types to float32 and leave float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Return a context that disables autocast; it does nothing on the ``meta`` device, which has no autocast."""
    # torch.compile cannot trace the general check, torch.amp.is_autocast_available.
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)
