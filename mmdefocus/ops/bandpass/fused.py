"""Registration of the C++ kernels of attention and retention with torch: fake kernels, autograd and FLOP formulas.

``mmdefocus::fused_bandpass_attention`` and ``mmdefocus::fused_retention`` rotate and decay as they load, so they take
queries and keys as they are, and decay and frequencies per pair.

Shapes: B batch, H heads, L tokens, d channels of a head, V channels of a value.
"""

from typing import Any

import torch
from torch import Tensor

from mmdefocus.ops.backends import KERNEL_CONSTANTS, can_run_cpp, disallow_double_backward
from mmdefocus.ops.flops import Shape, register_formula
from mmdefocus.ops.kernel_limits import ceil_div

from .registration import bandpass_attention_backward_flops, bandpass_attention_flops

ATTENTION_OP, RETENTION_OP = 'fused_bandpass_attention', 'fused_retention'
CHUNK = 64  # tokens of a chunk of retention, in C++ (``cpu_bandpass_tile``) and in PyTorch


def kernel_arguments(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, freq: Tensor | None, compute: torch.dtype
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Return q, k and v of one type, and the parameters in the type of the computation."""
    dtype = q.dtype if q.dtype == k.dtype == v.dtype else compute
    parameters = (None if parameter is None else parameter.to(compute) for parameter in (decay, freq))
    return tuple(x.to(dtype) for x in (q, k, v)), tuple(parameters)


def _empty_heads(like: Tensor) -> Tensor:
    """Return (B, H, L, d) in the memory order (B, L, H, d), as the kernels allocate it."""
    _, heads, length, channels = like.shape
    token_stride = heads * channels
    return like.new_empty_strided(like.shape, (length * token_stride, channels, token_stride, 1))


def _computed(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)


def _gradients(q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, freq: Tensor | None) -> tuple[Tensor, ...]:
    parameters = (_computed(q, *((0,) if p is None else p.shape)) for p in (decay, freq))
    return *(_empty_heads(x) for x in (q, k, v)), *parameters


def _fake_attention(q, k, v, decay, freq, causal, scale):
    return _empty_heads(v), _computed(q, *q.shape[:3])


def _fake_attention_backward(grad_y, q, k, v, decay, freq, y, lse, causal, scale):
    return _gradients(q, k, v, decay, freq)


def _state_shape(q: Tensor, v: Tensor) -> tuple[int, ...]:
    return (*q.shape[:2], v.shape[-1], q.shape[-1])


def _fake_retention(q, k, v, decay, freq, initial_state, scale, return_last_state, save_states):
    tile, padding = KERNEL_CONSTANTS['cpu_bandpass_tile'], KERNEL_CONSTANTS['cpu_bandpass_padding']
    rows, columns = (ceil_div(x.shape[-1], padding) * padding for x in (v, q))
    last_state = _computed(q, *(_state_shape(q, v) if return_last_state else (0,)))
    states = (*q.shape[:2], ceil_div(q.shape[2], tile), rows, columns) if save_states else (0,)
    return _empty_heads(v), last_state, _computed(q, *states)


def _fake_retention_backward(grad_y, grad_last_state, q, k, v, decay, freq, states, has_initial_state, scale):
    initial_state = _computed(q, *(_state_shape(q, v) if has_initial_state else (0,)))
    return *_gradients(q, k, v, decay, freq), initial_state


def _save_attention(ctx, inputs, output):
    *tensors, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate_attention(ctx, grad_y, _):
    *tensors, y, lse = ctx.saved_tensors
    backward = torch.ops.mmdefocus.fused_bandpass_attention_backward
    return *_of_present(tensors, backward(grad_y, *tensors, y, lse, ctx.causal, ctx.scale)), None, None


def _save_retention(ctx, inputs, output):
    *tensors, initial_state, ctx.scale, ctx.return_last_state, _ = inputs
    ctx.has_initial_state = initial_state is not None
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate_retention(ctx, grad_y, grad_last_state, _):
    *tensors, states = ctx.saved_tensors
    *gradients, grad_initial_state = torch.ops.mmdefocus.fused_retention_backward(
        grad_y, grad_last_state if ctx.return_last_state else None, *tensors, states, ctx.has_initial_state, ctx.scale
    )
    return *_of_present(tensors, gradients), grad_initial_state if ctx.has_initial_state else None, None, None, None


def _of_present(tensors, gradients):
    """Return None as the gradients of tensors that are None."""
    return (None if tensor is None else gradient for tensor, gradient in zip(tensors, gradients, strict=True))


def retention_flops(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of retention in chunks: attention within chunks, and two products per token with the state.

    Args:
        q, k: (B, H, L, d).
        v: (B, H, L, V).
    """
    batch, heads, length, channels = q
    pairs = length // CHUNK * CHUNK**2 + (length % CHUNK) ** 2
    return 2 * batch * heads * (pairs * (channels + v[-1]) + 2 * length * channels * v[-1])


def retention_backward_flops(
    grad_y: Any, grad_last_state: Any, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any
) -> int:
    """Return the FLOPs of the gradients of retention: each product has two, and the logits are recomputed."""
    batch, heads, length, channels = q
    pairs = length // CHUNK * CHUNK**2 + (length % CHUNK) ** 2
    return 2 * batch * heads * (pairs * (3 * channels + 2 * v[-1]) + 4 * length * channels * v[-1])


if can_run_cpp() is None:
    for _op, _fakes, _autograd in (
        (ATTENTION_OP, (_fake_attention, _fake_attention_backward), (_differentiate_attention, _save_attention)),
        (RETENTION_OP, (_fake_retention, _fake_retention_backward), (_differentiate_retention, _save_retention)),
    ):
        torch.library.register_fake(f'mmdefocus::{_op}', _fakes[0])
        torch.library.register_fake(f'mmdefocus::{_op}_backward', _fakes[1])
        torch.library.register_autograd(f'mmdefocus::{_op}', _autograd[0], setup_context=_autograd[1])
        disallow_double_backward(_op)

register_formula(ATTENTION_OP, bandpass_attention_flops)
register_formula(f'{ATTENTION_OP}_backward', bandpass_attention_backward_flops)
register_formula(RETENTION_OP, retention_flops)
register_formula(f'{RETENTION_OP}_backward', retention_backward_flops)
