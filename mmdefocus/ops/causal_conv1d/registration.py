"""Registration of the causal convolution with torch: argument checks, fake kernels, autograd and FLOP formulas.

The operators are ``mmdefocus::causal_conv1d``, which the extension declares, and ``mmdefocus::causal_conv1d_triton``.

Shapes: B batch, E channels, L time, K kernel width.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from mmdefocus.ops.backends import can_run_cpp, disallow_double_backward
from mmdefocus.ops.flops import Shape, register_formula
from mmdefocus.ops.kernel_limits import TRITON_LIMITS, check_supported
from mmdefocus.ops.validation import check_rank, check_shape, check_types, compute_dtype

TRITON_OP = 'causal_conv1d_triton'


def check_shapes(op: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError unless x is (B, E, L), weight (E, K) and bias (E) or None, with L and K of at least 1."""
    check_rank(op, 'x', x, '(batch, channels, length)')
    check_rank(op, 'weight', weight, '(channels, width)')
    channels, width = x.shape[1], weight.shape[1]
    if x.shape[2] == 0:
        raise ValueError(f'{op}: expected a sequence of at least one step, got x of shape {tuple(x.shape)}')
    if width == 0:
        raise ValueError(f'{op}: expected a kernel of at least one step, got weight of shape {tuple(weight.shape)}')
    check_shape(op, 'weight', weight, (channels, width), '(channels, width)')
    check_shape(op, 'bias', bias, (channels,), '(channels)')


# The compiled operators. Schemas: csrc/registration.cpp.


def _fake(x, weight, bias, silu):
    return torch.empty_like(x)


def _fake_backward(grad_y, x, weight, bias, silu):
    grad_bias = weight.new_empty(0) if bias is None else torch.empty_like(bias)
    return torch.empty_like(x), torch.empty_like(weight, memory_format=torch.contiguous_format), grad_bias


def _save(ctx, inputs, output):
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_y):
    x, weight, bias = ctx.saved_tensors
    backward = torch.ops.mmdefocus.causal_conv1d_backward
    grad_x, grad_weight, grad_bias = backward(grad_y, x, weight, bias, ctx.silu)
    return grad_x, grad_weight, None if bias is None else grad_bias, None


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::causal_conv1d', _fake)
    torch.library.register_fake('mmdefocus::causal_conv1d_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::causal_conv1d', _backward, setup_context=_save)
    disallow_double_backward('causal_conv1d')


# The Triton operators. Their kernels trust the arguments, so the operators check them for direct callers, too.


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    parameters = {'weight': weight, 'bias': bias}
    compute_dtype(TRITON_OP, {'x': x, **parameters})
    check_types(TRITON_OP, parameters, torch.float32)
    check_shapes(TRITON_OP, x, weight, bias)
    check_supported(TRITON_OP, TRITON_LIMITS.unsupported_convolution(weight.shape[1]))


@torch.library.custom_op('mmdefocus::causal_conv1d_triton', mutates_args=())
def causal_conv1d_triton(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """Compute :func:`mmdefocus.ops.causal_conv1d` by Triton.

    Args:
        x: (B, E, L), float16, bfloat16 or float32, with any strides; the result has its memory order.
        weight: (E, K), float32.
        bias: (E), float32.
        silu: Whether SiLU follows.
    """
    _check(x, weight, bias)
    from . import triton

    return triton.forward(x, weight, bias, silu)


@torch.library.custom_op('mmdefocus::causal_conv1d_triton_backward', mutates_args=())
def _triton_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, bias)
    check_types(TRITON_OP, {'grad': grad}, x.dtype)
    check_shape(TRITON_OP, 'grad', grad, x.shape, '(batch, channels, length)')
    from . import triton

    return triton.backward(grad, x, weight, bias, silu)


@causal_conv1d_triton.register_fake
def _(x, weight, bias, silu):
    return torch.empty_like(x)


@_triton_backward.register_fake
def _(grad, x, weight, bias, silu):
    return torch.empty_like(x), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _differentiate_triton(ctx, grad):
    return *_triton_backward(grad, *ctx.saved_tensors, ctx.silu), None


causal_conv1d_triton.register_autograd(_differentiate_triton, setup_context=_save)
disallow_double_backward(TRITON_OP)


def causal_conv1d_flops(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of a depthwise convolution, 2 B E L K.

    Args:
        x: (B, E, L).
        weight: (E, K).
    """
    return 2 * prod(x) * weight[1]


def causal_conv1d_backward_flops(grad_y: Shape, x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of the gradients of ``x`` and ``weight``, 4 B E L K."""
    return 4 * prod(x) * weight[1]


for _op in ('causal_conv1d', TRITON_OP):
    register_formula(_op, causal_conv1d_flops)
    register_formula(f'{_op}_backward', causal_conv1d_backward_flops)
