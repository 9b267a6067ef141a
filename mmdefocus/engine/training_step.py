"""One call of the model in training, with what is needed to repeat it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from .plain_batch import image_paths
from .random_state import State, random_state, restore_random_state

_DEVICES = ('cpu', 'cuda')


@dataclass
class TrainingStep:
    """A forward pass of the model with a micro-batch, as it began.

    Attributes:
        args: Positional arguments: the micro-batch behind the data preprocessor.
        kwargs: Keyword arguments.
        iteration: Number of the iteration, from 0.
        epoch: Number of the epoch, from 0.
        buffers: Copies of the buffers of the model, which the forward pass may change.
        random: State of the random number generators.
        autocast: Name of the autocast type by device type, where autocast is on.
        loss_divisor: Divisor of the loss in the backward pass, for accumulated gradients.
        loss_scale: Factor of the loss in the backward pass, for mixed precision; None if it is unknown.
        losses: Losses by name, once they are computed.
    """

    args: tuple
    kwargs: dict[str, Any]
    iteration: int
    epoch: int
    buffers: list[Tensor]
    random: State
    autocast: dict[str, str]
    loss_divisor: float
    loss_scale: Tensor | None
    losses: dict[str, Tensor] = field(default_factory=dict)

    @property
    def images(self) -> list[str]:
        """The files of the images."""
        return image_paths([self.args, self.kwargs])


def begin_step(
    model: nn.Module, wrapper: OptimWrapper, args: tuple, kwargs: dict[str, Any], iteration: int, epoch: int
) -> TrainingStep:
    """Record a call of the model that is about to begin. A GPU is not waited for."""
    buffers = [buffer.detach() for buffer in model.buffers()]
    copies = [torch.empty_like(buffer) for buffer in buffers]
    if buffers:
        torch._foreach_copy_(copies, buffers)
    scaler = getattr(wrapper, 'loss_scaler', None)
    parameter = next(model.parameters())
    scale = None if scaler is None else scaler.scale(torch.ones((), device=parameter.device))
    autocast = {
        device: str(torch.get_autocast_dtype(device)).removeprefix('torch.')
        for device in _DEVICES
        if torch.is_autocast_enabled(device)
    }
    divisor = float(round(1 / wrapper.scale_loss(1.0)))
    return TrainingStep(args, kwargs, iteration, epoch, copies, random_state(), autocast, divisor, scale)


@contextmanager
def as_it_began(model: nn.Module, step: TrainingStep) -> Iterator[None]:
    """Restore buffers, random numbers and autocast of a step, the latter inside the block only."""
    with torch.no_grad():
        for buffer, copy in zip(model.buffers(), step.buffers, strict=True):
            buffer.copy_(copy)
    restore_random_state(step.random)
    with autocast_as(step.autocast):
        yield


@contextmanager
def autocast_as(types: dict[str, str]) -> Iterator[None]:
    """Turn autocast on, with the given types by device type, or off."""
    with ExitStack() as stack:
        for device in _DEVICES:
            dtype = getattr(torch, types[device]) if device in types else None
            if dtype is not None or torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, dtype, enabled=dtype is not None))
        yield
