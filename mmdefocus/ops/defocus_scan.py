"""The fused core of the De-focus Mamba mixer: all between its projections in one operator.

Legend: B batch, L tokens, E channels, N state.
"""

from contextlib import nullcontext
from typing import Literal, overload

import torch
from torch import Tensor

from mmdefocus.ops import triton_defocus_scan
from mmdefocus.ops.backends import can_run_cpp, choose_backend, refuse_second_derivatives
from mmdefocus.ops.defocus_scan_arguments import check_shapes
from mmdefocus.ops.defocus_scan_chain import defocus_scan_chain
from mmdefocus.ops.kernel_limits import CUDA_CHUNK, CUDA_LIMITS, TRITON_LIMITS
from mmdefocus.ops.validation import check_types, compute_dtype

# Steps between the states that the C++ forward pass saves (`kChunk` in csrc/cpu/chunks.h).
CPU_CHUNK = 32


def _fake_forward(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size, eps):
    (batch, length, channels), state = u.shape, A.shape[1]
    if u.device.type == 'cuda':
        chunk_states = A.new_empty(batch, (length + CUDA_CHUNK - 1) // CUDA_CHUNK, channels, state)
    else:
        chunk_states = A.new_empty(batch, (length + CPU_CHUNK - 1) // CPU_CHUNK, state, channels)
    return u.new_empty(u.shape), A.new_empty(batch, channels, state), chunk_states


def _fake_backward(grad_y, grad_last_state, *arguments):
    *_, chunk_states = arguments
    u, dt, A, B, C, D, z, dt_bias, freq, _, initial_state = arguments[:11]
    differentiable = (u, dt, A, B, C, D, z, dt_bias, freq, initial_state)
    return tuple(chunk_states.new_empty(0) if x is None else x.new_empty(x.shape) for x in differentiable)


def _save(ctx, inputs, output):
    *tensors, ctx.delta_scale, ctx.group_size, ctx.eps = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_y, grad_last_state, grad_chunk_states):
    *tensors, chunk_states = ctx.saved_tensors
    u, *_, freq, _, initial_state = tensors
    grad_y = torch.zeros_like(u) if grad_y is None else grad_y
    options = (ctx.delta_scale, ctx.group_size, ctx.eps)
    backward = torch.ops.mmdefocus.defocus_scan_backward
    *gradients, grad_freq, grad_initial_state = backward(grad_y, grad_last_state, *tensors, *options, chunk_states)
    grad_freq = None if freq is None else grad_freq
    grad_initial_state = None if initial_state is None else grad_initial_state
    return *gradients, grad_freq, None, grad_initial_state, None, None, None


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::defocus_scan', _fake_forward)
    torch.library.register_fake('mmdefocus::defocus_scan_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::defocus_scan', _differentiate, setup_context=_save)
    refuse_second_derivatives('defocus_scan')


def _defocus_scan_reference(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, *rest):
    dtype = A.dtype
    # Autocast would move parts of the chain into half types; the meta device has none to switch off.
    with nullcontext() if u.is_meta else torch.autocast(u.device.type, enabled=False):
        x, step, B, C, gate = (tensor.to(dtype) for tensor in (u, dt, B, C, z))
        y, last_state = defocus_scan_chain(x, step, A, B, C, D, gate, *rest)
    return y.to(u.dtype), last_state


def _defocus_scan_compiled(*arguments):
    y, last_state, _ = torch.ops.mmdefocus.defocus_scan(*arguments)
    return y, last_state


def _defocus_scan_triton(*arguments):
    return triton_defocus_scan.scan(*arguments)


_IMPLEMENTATIONS = {
    'cuda': _defocus_scan_compiled,
    'triton': _defocus_scan_triton,
    'cpp': _defocus_scan_compiled,
    'reference': _defocus_scan_reference,
}


@overload
def defocus_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    freq: Tensor | None = ...,
    positions: Tensor | None = ...,
    initial_state: Tensor | None = ...,
    delta_scale: float = ...,
    group_size: int = ...,
    eps: float = ...,
    return_last_state: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def defocus_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    freq: Tensor | None = ...,
    positions: Tensor | None = ...,
    initial_state: Tensor | None = ...,
    delta_scale: float = ...,
    group_size: int = ...,
    eps: float = ...,
    *,
    return_last_state: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def defocus_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    freq: Tensor | None = None,
    positions: Tensor | None = None,
    initial_state: Tensor | None = None,
    delta_scale: float = 1.0,
    group_size: int = 64,
    eps: float = 1e-6,
    return_last_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Everything between the projections of the De-focus Mamba mixer (section 3 of the paper, arXiv 2406.04342).

    For every channel of every sequence::

        delta_t = softplus(dt_t + dt_bias) / delta_scale
        B_t, C_t = rotate(B_t), rotate(C_t)                         (with freq; see mmdefocus.ops.rotary)
        h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t
        y_t = sum over n of C_t h_t
        y_t = y_t / sqrt(mean of y_t² over the channel's group + eps)
        y_t = (y_t + D u_t) silu(z_t)

    Channels come last, so that slices of the projections' outputs enter without a copy. Half types are converted on
    loading and storing; all between is float32 (float64 for float64), whatever autocast says.

    Args:
        u: input, (B, L, E), float16, bfloat16, float32 or float64.
        dt: step sizes before the softplus, (B, L, E), of the type of ``u``.
        A: (E, N), real; negative for a decaying state.
        B: input projection, (B, L, N), of the type of ``u``.
        C: output projection, as B.
        D: weight of the direct path, (E).
        z: gate, (B, L, E), of the type of ``u``.
        dt_bias: (E).
        freq: rotary frequencies, (N), N even, radians per unit of position; None leaves the rotation out.
        positions: (L), float32 (float64 for float64), not differentiable; by default 0, 1, ….
        initial_state: h_{-1}, (B, E, N), float32 (float64 for float64); by default 0.
        delta_scale: divides the step sizes; positive.
        group_size: channels per group of the norm; divides E.
        eps: added to the mean square.
        return_last_state: whether the state after the last token is returned too. It is differentiable, and as the
            ``initial_state`` of a second call, with the ``positions`` going on, it continues the sequence.
        backend: a name of :func:`mmdefocus.ops.available_backends`; None chooses by the device and the type.

    Returns:
        y (B, L, E) of the type of ``u``; with ``return_last_state``, also the state (B, E, N) in float32 (float64 for
        float64).

    Raises:
        TypeError: complex, integer or mixed types.
        ValueError: shapes that do not fit, an empty sequence or state, tensors on several devices, an odd N with
            ``freq``, a ``delta_scale`` that is not positive, an unknown backend.
        RuntimeError: the named backend cannot run here.
    """
    op = 'defocus_scan'
    activations = {'u': u, 'dt': dt, 'B': B, 'C': C, 'z': z}
    parameters = {'A': A, 'D': D, 'dt_bias': dt_bias, 'freq': freq}
    others = {'positions': positions, 'initial_state': initial_state}
    compute = compute_dtype(op, {**activations, **parameters, **others})
    for name, tensor in activations.items():
        if tensor.dtype != u.dtype:
            raise TypeError(f'{op}: expected {name} of the type of u ({u.dtype}), got {tensor.dtype}')
    check_types(op, others, compute)
    check_shapes(op, u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, group_size)
    if not delta_scale > 0:
        raise ValueError(f'{op}: expected a positive delta_scale, got {delta_scale}')

    A, D, dt_bias = (parameter.to(compute) for parameter in (A, D, dt_bias))
    if freq is not None:
        freq = freq.to(compute)
        if positions is None:
            positions = torch.arange(u.shape[1], device=u.device, dtype=compute)
    limits = {
        'cuda': CUDA_LIMITS.scan_obstacle(A.shape[1], group_size),
        'triton': TRITON_LIMITS.scan_obstacle(A.shape[1], group_size),
    }
    implementation = _IMPLEMENTATIONS[choose_backend(backend, u.device, u.dtype, _IMPLEMENTATIONS, limits)]
    y, last_state = implementation(
        u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, float(delta_scale), group_size, float(eps)
    )
    return (y, last_state) if return_last_state else y
