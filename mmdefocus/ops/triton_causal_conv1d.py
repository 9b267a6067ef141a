"""Depthwise causal convolution over tokens by Triton, with its SiLU.

This is what is around :mod:`mmdefocus.ops.triton_causal_conv1d_kernels`. Importing this module does not need Triton.

Legend: B batch, E channels, L time, K kernel width; `d_x` is the gradient of x.
"""

import torch
from torch import Tensor

from mmdefocus.ops.backends import refuse_second_derivatives
from mmdefocus.ops.causal_conv1d_arguments import check_shapes
from mmdefocus.ops.kernel_limits import TRITON_LIMITS, ceil_div, refuse
from mmdefocus.ops.validation import check_shape, check_types, compute_dtype

OP = 'causal_conv1d_triton'
TOKENS, CHANNELS = 32, 64


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    parameters = {'weight': weight, 'bias': bias}
    compute_dtype(OP, {'x': x, **parameters})
    check_types(OP, parameters, torch.float32)
    check_shapes(OP, x, weight, bias)
    refuse(OP, TRITON_LIMITS.convolution_obstacle(weight.shape[1]))


def _launch(x: Tensor, weight: Tensor, silu: bool) -> tuple[tuple[int], dict[str, int | bool]]:
    """Grid and sizes of the kernels."""
    batch, channels, length = x.shape
    sizes: dict[str, int | bool] = dict(length=length, channels=channels, SILU=silu, WIDTH=weight.shape[1])
    sizes |= dict(TOKENS=TOKENS, CHANNELS=CHANNELS)
    return (batch * ceil_div(length, TOKENS) * ceil_div(channels, CHANNELS),), sizes


def _strides(**tensors: Tensor) -> dict[str, int]:
    axes = ('batch', 'channel', 'token')
    return {f'{name}_{axis}': x.stride(i) for name, x in tensors.items() for i, axis in enumerate(axes)}


@torch.library.custom_op('mmdefocus::causal_conv1d_triton', mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    _check(x, weight, bias)
    from mmdefocus.ops import triton_causal_conv1d_kernels as kernels  # Triton need not be there

    y = torch.empty_like(x)
    grid, sizes = _launch(x, weight, silu)
    with torch.cuda.device_of(x):
        kernels.forward[grid](x, weight.contiguous(), bias.contiguous(), y, **_strides(x=x, y=y), **sizes)
    return y


@torch.library.custom_op('mmdefocus::causal_conv1d_triton_backward', mutates_args=())
def _convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, weight, bias)
    from mmdefocus.ops import triton_causal_conv1d_kernels as kernels

    check_types(OP, {'grad': grad}, x.dtype)
    check_shape(OP, 'grad', grad, x.shape, '(batch, channels, length)')
    d_x = torch.empty_like(x)
    grid, sizes = _launch(x, weight, silu)
    channels, width = weight.shape
    d_parameters = weight.new_empty(x.shape[0] * ceil_div(x.shape[2], TOKENS), width + 1, channels)
    strides = _strides(grad=grad, x=x, d_x=d_x)
    with torch.cuda.device_of(x):
        kernels.backward[grid](
            grad, x, weight.contiguous(), bias.contiguous(), d_x, d_parameters, num_warps=8, **strides, **sizes
        )
    sums = d_parameters.sum(0)
    return d_x, sums[:width].T.contiguous(), sums[width].clone()


@_convolve.register_fake
def _(x, weight, bias, silu):
    return torch.empty_like(x)


@_convolve_backward.register_fake
def _(grad, x, weight, bias, silu):
    return torch.empty_like(x), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(ctx, inputs, output):
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    return *_convolve_backward(grad, *ctx.saved_tensors, ctx.silu), None


_convolve.register_autograd(_differentiate, setup_context=_save)
refuse_second_derivatives('causal_conv1d_triton')


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """Compute :func:`mmdefocus.ops.causal_conv1d`.

    Args:
        x: (B, E, L), float16, bfloat16 or float32, with any strides; the result has its memory order.
        weight: (E, K), float32.
        bias: (E), float32, or None.
        silu: whether ``y sigmoid(y)`` follows.
    """
    return _convolve(x, weight, weight.new_zeros(weight.shape[0]) if bias is None else bias, silu)
