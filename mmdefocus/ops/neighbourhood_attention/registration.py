"""Registration of neighbourhood attention with torch: argument checks, fake kernels, autograd and FLOP formulas.

The operators are ``mmdefocus::neighbourhood_attention``, in PyTorch, and ``mmdefocus::neighbourhood_attention_triton``.

Shapes: B batch, h heads, H and W rows and columns of the map, d channels of a head, K side of the neighbourhood.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from mmdefocus.ops.backends import disallow_double_backward
from mmdefocus.ops.flops import Shape, register_formula
from mmdefocus.ops.validation import check_shape, check_types, compute_dtype

from . import tiles
from .arguments import MAP, check_arguments

TRITON_OP = 'neighbourhood_attention_triton'


@torch.library.custom_op('mmdefocus::neighbourhood_attention', mutates_args=())
def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, scale: float) -> Tensor:
    """Neighbourhood attention by tiles.

    Args:
        q, k, v: (B, h, H, W, d), float32 or float64.
        bias: (h, 2K - 1, 2K - 1), of the same type.
        kernel_size: K.
        scale: Factor of the logits before the bias.

    Returns:
        (B, h, H, W, d).
    """
    with torch.autocast(q.device.type, enabled=False):
        return tiles.attend(q, k, v, bias, kernel_size, scale)


@torch.library.custom_op('mmdefocus::neighbourhood_attention_backward', mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(q.device.type, enabled=False):
        return tiles.attend_backward(grad, q, k, v, bias, kernel_size, scale)


@torch.library.custom_op('mmdefocus::neighbourhood_attention_triton', mutates_args=())
def attend_triton(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Neighbourhood attention by Triton.

    Args:
        q, k, v: (B, h, H, W, d), float16, bfloat16 or float32.
        bias: (h, 2K - 1, 2K - 1), float32.
        kernel_size: K.
        scale: Factor of the logits before the bias.

    Returns:
        (B, h, H, W, d) of the type of ``q``; for the backward pass, the logarithm of the sum of exponentials of every
        query, (B, h, H, W), float32.
    """
    _check_triton(q, k, v, bias, kernel_size)
    from . import triton

    return triton.forward(q, k, v, bias, kernel_size, scale)


@torch.library.custom_op('mmdefocus::neighbourhood_attention_triton_backward', mutates_args=())
def _triton_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, y: Tensor, lse: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check_triton(q, k, v, bias, kernel_size)
    check_types(TRITON_OP, {'grad': grad, 'y': y}, q.dtype)
    check_types(TRITON_OP, {'lse': lse}, torch.float32)
    for name, tensor in (('grad', grad), ('y', y)):
        check_shape(TRITON_OP, name, tensor, tuple(q.shape), MAP)
    check_shape(TRITON_OP, 'lse', lse, tuple(q.shape[:4]), '(batch, heads, height, width)')
    from . import triton

    return triton.backward(grad, q, k, v, bias, y, lse, kernel_size, scale)


def _check_triton(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int) -> None:
    """Check the arguments for direct callers of the operators, because the kernels trust them."""
    compute_dtype(TRITON_OP, {'q': q, 'k': k, 'v': v, 'bias': bias})
    check_types(TRITON_OP, {'bias': bias}, torch.float32)
    check_arguments(TRITON_OP, q, k, v, bias, kernel_size)


@attend.register_fake
def _(q, k, v, bias, kernel_size, scale):
    return q.new_empty(q.shape)


@_attend_backward.register_fake
def _(grad, q, k, v, bias, kernel_size, scale):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, bias))


@attend_triton.register_fake
def _(q, k, v, bias, kernel_size, scale):
    return q.new_empty(q.shape), bias.new_empty(q.shape[:4])


@_triton_backward.register_fake
def _(grad, q, k, v, bias, y, lse, kernel_size, scale):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, bias))


def _save(ctx, inputs, output):
    *tensors, ctx.kernel_size, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _save_triton(ctx, inputs, output):
    *tensors, ctx.kernel_size, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate_with(backward):
    def differentiate(ctx, grad, *_):
        return *backward(grad, *ctx.saved_tensors, ctx.kernel_size, ctx.scale), None, None

    return differentiate


attend.register_autograd(_differentiate_with(_attend_backward), setup_context=_save)
attend_triton.register_autograd(_differentiate_with(_triton_backward), setup_context=_save_triton)


def neighbourhood_attention_flops(q: Shape, k: Shape, v: Shape, bias: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of attention to K² keys, as torch counts its own: 4 B h H W K² d.

    Args:
        q, k, v: (B, h, H, W, d).
        bias: (h, 2K - 1, 2K - 1).
    """
    return 4 * prod(q) * _keys(bias)


def neighbourhood_attention_backward_flops(
    grad: Shape, q: Shape, k: Shape, v: Shape, bias: Shape, *_: Any, **__: Any
) -> int:
    """Return the FLOPs of the gradients as torch counts those of its own attention: five products, 10 B h H W K² d."""
    return 10 * prod(q) * _keys(bias)


def _keys(bias: Shape) -> int:
    """Return K², the number of keys of a query, from the shape (h, 2K - 1, 2K - 1) of the bias."""
    return ((bias[1] + 1) // 2) ** 2


for _op in ('neighbourhood_attention', TRITON_OP):
    disallow_double_backward(_op)
    register_formula(_op, neighbourhood_attention_flops)
    register_formula(f'{_op}_backward', neighbourhood_attention_backward_flops)
