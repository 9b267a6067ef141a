"""Check that gradients are finite before the optimiser uses them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor

# GradScaler lowers the scale for non-finite gradients. At one or below, it is not the scale that makes them so.
UNSCALED = 1.0


class GradientCheck:
    """Check of the gradients of an optimiser wrapper, from the construction until :meth:`remove`.

    The check uses the norm that the wrapper computes to clip gradients, for which the wrapper waits for the GPU anyway.
    Without such a norm, it is one fused check per optimiser step. With a gradient scaler, which skips steps with
    non-finite gradients, there is no check unless :attr:`is_unscaled` is set.

    Args:
        wrapper: Optimiser wrapper.
        stop: Called before the step if a gradient is not finite.

    Attributes:
        unread: Largest magnitude of the gradients accumulated so far, still on its device, until someone reads it.
        is_unscaled: The loss scale is at most 1.
    """

    def __init__(self, wrapper: OptimWrapper, stop: Callable[[], None]) -> None:
        self.unread: Tensor | None = None
        self.is_unscaled = False
        self._wrapper, self._stop = wrapper, stop
        self._has_scaler = getattr(wrapper, 'loss_scaler', None) is not None
        self._clips_norm = bool(wrapper.clip_grad_kwargs) and wrapper.grad_name == 'grad_norm'
        self._own = {name: vars(wrapper).get(name) for name in ('backward', 'step')}
        self._originals: dict[str, Any] = {name: getattr(wrapper, name) for name in self._own}
        wrapper.backward, wrapper.step = self._backward, self._step
        if self._clips_norm:
            self._own['clip_func'] = self._originals['clip_func'] = wrapper.clip_func
            wrapper.clip_func = self._clip

    def remove(self) -> None:
        """Restore the methods of the wrapper."""
        for name, method in self._own.items():
            delattr(self._wrapper, name)
            if method is not None:
                setattr(self._wrapper, name, method)

    @property
    def _is_on(self) -> bool:
        return not self._has_scaler or self.is_unscaled

    def _backward(self, loss: Tensor, **kwargs: Any) -> None:
        self._originals['backward'](loss, **kwargs)
        if self._is_on and not self._wrapper.should_update():
            self.unread = self._largest()

    def _step(self, **kwargs: Any) -> None:
        if self._is_on and not self._clips_norm and not self._largest().isfinite():
            self._stop()
        self._originals['step'](**kwargs)

    def _clip(self, parameters: list[Tensor], **kwargs: Any) -> float:
        norm = float(self._originals['clip_func'](parameters, **kwargs | {'error_if_nonfinite': False}))
        # Clipping by an infinite norm makes infinite gradients NaN and finite ones, whose norm overflows, zero.
        if self._is_on and not math.isfinite(norm) and not self._largest().isfinite():
            self._stop()
        return norm

    def _largest(self) -> Tensor:
        groups = self._wrapper.optimizer.param_groups
        gradients = [x.grad for group in groups for x in group['params'] if x.grad is not None]
        return torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)
