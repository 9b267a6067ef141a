"""Registration of the De-focus scan with torch: fake kernels, autograd and FLOP formulas.

The operators are ``mmdefocus::defocus_scan``, which the extension declares, and ``mmdefocus::defocus_scan_triton``.

Shapes: B batch, L tokens, E channels, N state.
"""

import torch
from torch import Tensor

from mmdefocus.ops.backends import KERNEL_CONSTANTS, can_run_cpp, disallow_double_backward
from mmdefocus.ops.flops import register_formula
from mmdefocus.ops.kernel_limits import TRITON_LIMITS, ceil_div, check_supported
from mmdefocus.ops.selective_scan.registration import selective_scan_backward_flops, selective_scan_flops
from mmdefocus.ops.validation import check_shape, check_types, compute_dtype

from .arguments import TRITON_CHUNK, ScanTensors, check_shapes

TRITON_OP = 'defocus_scan_triton'


# The compiled operators. Schemas: csrc/registration.cpp.


def _fake(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size, eps):
    (batch, length, channels), state = u.shape, A.shape[1]
    if u.device.type == 'cuda':
        chunk_states = A.new_empty(batch, ceil_div(length, KERNEL_CONSTANTS['cuda_scan_chunk']), channels, state)
        normed = u.new_empty(u.shape, dtype=torch.float32 if u.dtype == torch.float32 else torch.float16)
        inverse_rms = A.new_empty(batch, length, channels // group_size)
    else:
        chunk_states = A.new_empty(batch, ceil_div(length, KERNEL_CONSTANTS['cpu_scan_chunk']), state, channels)
        normed, inverse_rms = A.new_empty(0), A.new_empty(0)
    return u.new_empty(u.shape), A.new_empty(batch, channels, state), chunk_states, normed, inverse_rms


def _fake_backward(grad_y, grad_last_state, *arguments):
    tensors = ScanTensors(*arguments[:11])
    differentiable = (x for name, x in tensors._asdict().items() if name != 'positions')
    return tuple(tensors.A.new_empty(0) if x is None else x.new_empty(x.shape) for x in differentiable)


def _save(ctx, inputs, output):
    *tensors, ctx.delta_scale, ctx.group_size, ctx.eps = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, grad_last_state, *_):
    saved = ctx.saved_tensors  # once: with activation checkpointing, a second access raises an error
    tensors, results = ScanTensors(*saved[:11]), saved[11:]
    grad_y = torch.zeros_like(tensors.u) if grad_y is None else grad_y
    options = (ctx.delta_scale, ctx.group_size, ctx.eps)
    backward = torch.ops.mmdefocus.defocus_scan_backward
    *gradients, grad_freq, grad_initial_state = backward(grad_y, grad_last_state, *tensors, *options, *results)
    grad_freq = None if tensors.freq is None else grad_freq
    grad_initial_state = None if tensors.initial_state is None else grad_initial_state
    return *gradients, grad_freq, None, grad_initial_state, None, None, None


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::defocus_scan', _fake)
    torch.library.register_fake('mmdefocus::defocus_scan_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::defocus_scan', _backward, setup_context=_save)
    disallow_double_backward('defocus_scan')


# The Triton operators. Their kernels trust the arguments, so the operators check them for direct callers, too.


def _check(tensors: ScanTensors, group_size: int) -> None:
    given = tensors._asdict()
    compute_dtype(TRITON_OP, given)
    activations = {name: given.pop(name) for name in ('u', 'dt', 'z')}
    check_types(TRITON_OP, activations, tensors.u.dtype)
    check_types(TRITON_OP, given, torch.float32)
    check_shapes(TRITON_OP, tensors, group_size)
    check_supported(TRITON_OP, TRITON_LIMITS.unsupported_scan(tensors.A.shape[1], group_size))


@torch.library.custom_op('mmdefocus::defocus_scan_triton', mutates_args=())
def defocus_scan_triton(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor,
    delta_scale: float,
    group_size: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute :func:`mmdefocus.ops.defocus_scan` by Triton, for B and C that are already rotated.

    Args:
        u, dt, z: (B, L, E), float16, bfloat16 or float32, all of one type.
        A, B, C, D, dt_bias, initial_state: Float32.
        delta_scale, group_size, eps: As there.

    Returns:
        y (B, L, E) of the type of ``u``, the final state (B, E, N), and the state before every chunk of tokens
        (B, chunks, E, N), from which the backward pass recomputes the others.
    """
    tensors = ScanTensors(u, dt, A, B, C, D, z, dt_bias, initial_state=initial_state)
    _check(tensors, group_size)
    from . import triton

    return triton.forward(tensors, delta_scale, group_size, eps)


@torch.library.custom_op('mmdefocus::defocus_scan_triton_backward', mutates_args=())
def _triton_backward(
    grad_y: Tensor,
    grad_last_state: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    chunk_states: Tensor,
    delta_scale: float,
    group_size: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = ScanTensors(u, dt, A, B, C, D, z, dt_bias)
    _check(tensors, group_size)
    (batch, length, channels), state = u.shape, A.shape[1]
    check_types(TRITON_OP, {'grad_y': grad_y}, u.dtype)
    check_types(TRITON_OP, {'grad_last_state': grad_last_state, 'chunk_states': chunk_states}, torch.float32)
    check_shape(TRITON_OP, 'grad_y', grad_y, u.shape, '(batch, length, channels)')
    check_shape(TRITON_OP, 'grad_last_state', grad_last_state, (batch, channels, state), '(batch, channels, state)')
    chunks = (batch, ceil_div(length, TRITON_CHUNK), channels, state)
    check_shape(TRITON_OP, 'chunk_states', chunk_states, chunks, '(batch, chunks, channels, state)')
    from . import triton

    return triton.backward(grad_y, grad_last_state, tensors, chunk_states, delta_scale, group_size, eps)


@defocus_scan_triton.register_fake
def _(u, dt, A, B, C, D, z, dt_bias, initial_state, delta_scale, group_size, eps):
    chunk_states = A.new_empty(u.shape[0], ceil_div(u.shape[1], TRITON_CHUNK), *A.shape)
    return u.new_empty(u.shape), A.new_empty(initial_state.shape), chunk_states


@_triton_backward.register_fake
def _(grad_y, grad_last_state, u, dt, A, B, C, D, z, dt_bias, chunk_states, delta_scale, group_size, eps):
    return tuple(x.new_empty(x.shape) for x in (u, dt, A, B, C, D, z, dt_bias, grad_last_state))


def _save_triton(ctx, inputs, output):
    *tensors, _, ctx.delta_scale, ctx.group_size, ctx.eps = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate_triton(ctx, grad_y, grad_last_state, grad_chunk_states):
    u, *rest, chunk_states = ctx.saved_tensors
    grad_y = torch.zeros_like(u) if grad_y is None else grad_y
    if grad_last_state is None:
        grad_last_state = torch.zeros_like(chunk_states[:, 0])
    options = (ctx.delta_scale, ctx.group_size, ctx.eps)
    return *_triton_backward(grad_y, grad_last_state, u, *rest, chunk_states, *options), None, None, None


defocus_scan_triton.register_autograd(_differentiate_triton, setup_context=_save_triton)
disallow_double_backward(TRITON_OP)

for _op in ('defocus_scan', TRITON_OP):
    register_formula(_op, selective_scan_flops)
    register_formula(f'{_op}_backward', selective_scan_backward_flops)
