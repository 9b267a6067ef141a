"""What must not be computed in half precision, whatever autocast or the parameters' dtype say."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Promote half types to float32 and leave float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def autocast_off(device: torch.device) -> AbstractContextManager:
    """Context without autocast; does nothing on the ``meta`` device, which has none."""
    # torch.amp.is_autocast_available would be the general question, but torch.compile cannot trace it.
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)
