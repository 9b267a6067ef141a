"""A linear layer whose output features come as two contiguous halves."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import operand_dtype


def linear_halves(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute x W₁ᵀ and x W₂ᵀ with the first and the last half of the rows of ``weight``.

    ``F.linear(x, weight).chunk(2, -1)`` gives views that are not contiguous, and two products with ``weight.chunk(2)``
    copy the gradients of the halves into one tensor. This function does neither. It follows autocast.

    Args:
        x: Input (..., C).
        weight: (2 · E, C), dtype of ``x`` or of autocast.

    Returns:
        Two contiguous tensors (..., E), dtype of ``x`` or of autocast.
    """
    x, weight = (tensor.to(operand_dtype(tensor)) for tensor in (x, weight))
    # Compilers plan the copies themselves; traces, such as those that count FLOPs, do not see into the function.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        first, second = (F.linear(x, half) for half in weight.chunk(2))
    else:
        first, second = _LinearHalves.apply(x.flatten(0, -2), weight)
        first, second = (half.unflatten(0, x.shape[:-1]) for half in (first, second))
    return first, second


class _LinearHalves(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        # One product of a batch of two: on a CPU, its threads share the work better than those of two products.
        first, second = torch.bmm(x.expand(2, -1, -1), weight.unflatten(0, (2, -1)).mT)
        return first, second

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            first, second = weight.chunk(2)
            x_grad = grads[0] @ first + grads[1] @ second
        if ctx.needs_input_grad[1] and torch.is_grad_enabled():  # out= has no second derivatives
            weight_grad = torch.cat([grad.T @ x for grad in grads])
        elif ctx.needs_input_grad[1]:
            weight_grad = torch.empty_like(weight)
            for grad, half in zip(grads, weight_grad.chunk(2), strict=True):
                torch.mm(grad.T, x, out=half)
        return x_grad, weight_grad
