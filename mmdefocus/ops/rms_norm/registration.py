"""Registration of ``mmdefocus::rms_norm`` with torch: fake kernels, autograd and FLOP formulas.

Schemas: csrc/registration.cpp.
"""

from typing import Any

import torch
from torch import Tensor

from mmdefocus.ops.backends import can_run_cpp
from mmdefocus.ops.flops import register_formula


def _fake(x, weight, eps, dtype):
    return x.new_empty(x.shape, dtype=dtype), weight.new_empty(x.numel() // x.shape[-1])


def _fake_backward(grad_y, x, weight, inverse_rms):
    return torch.empty_like(x), torch.empty_like(weight)


def _save(ctx, inputs, output):
    x, weight, ctx.eps, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiable_backward(grad_y: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Compute the gradients of x and weight by operators that have gradients themselves."""
    wide = x.to(weight.dtype)
    inverse_rms = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    grad, normed = grad_y.to(weight.dtype), wide * inverse_rms
    scaled = grad * weight
    grad_x = inverse_rms * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    return grad_x.to(x.dtype), (grad * normed).flatten(0, -2).sum(0)


def _backward(ctx, grad_y, _):
    x, weight, inverse_rms = ctx.saved_tensors
    if torch.is_grad_enabled():  # with create_graph=True
        grad_x, grad_weight = _differentiable_backward(grad_y, x, weight, ctx.eps)
    else:
        grad_x, grad_weight = torch.ops.mmdefocus.rms_norm_backward(grad_y, x, weight, inverse_rms)
    return grad_x, grad_weight, None, None


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::rms_norm', _fake)
    torch.library.register_fake('mmdefocus::rms_norm_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::rms_norm', _backward, setup_context=_save)


def rms_norm_flops(*_: Any, **__: Any) -> int:
    """Return 0, as torch counts its own norms."""
    return 0


for _op in ('rms_norm', 'rms_norm_backward'):
    register_formula(_op, rms_norm_flops)
