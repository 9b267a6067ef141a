"""Fused core of the De-focus Mamba mixer: the operations between its projections as one operator.

Shapes: B batch, L tokens, E channels, N state.
"""

from contextlib import nullcontext
from typing import Literal, overload

import torch
from torch import Tensor

from mmdefocus.ops.backends import choose_backend
from mmdefocus.ops.kernel_limits import CUDA_LIMITS, TRITON_LIMITS
from mmdefocus.ops.validation import check_types, compute_dtype

from .arguments import ScanTensors, check_shapes
from .reference import defocus_scan_reference
from .registration import defocus_scan_triton
from .rotary import learnable_rotary


def _compiled(tensors: ScanTensors, delta_scale: float, group_size: int, eps: float) -> tuple[Tensor, Tensor]:
    y, last_state, *_ = torch.ops.mmdefocus.defocus_scan(*tensors, delta_scale, group_size, eps)
    return y, last_state


def _triton(tensors: ScanTensors, delta_scale: float, group_size: int, eps: float) -> tuple[Tensor, Tensor]:
    u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state = tensors
    B, C = B.float(), C.float()
    if freq is not None:
        assert positions is not None
        B, C = (learnable_rotary(x, positions, freq) for x in (B, C))
    if initial_state is None:
        initial_state = A.new_zeros(u.shape[0], *A.shape)
    y, last_state, _ = defocus_scan_triton(u, dt, A, B, C, D, z, dt_bias, initial_state, delta_scale, group_size, eps)
    return y, last_state


def _reference(tensors: ScanTensors, delta_scale: float, group_size: int, eps: float) -> tuple[Tensor, Tensor]:
    u, dtype = tensors.u, tensors.A.dtype
    # Autocast would move parts of the chain into half types; the meta device has no autocast to switch off.
    with nullcontext() if u.is_meta else torch.autocast(u.device.type, enabled=False):
        activations = {name: getattr(tensors, name).to(dtype) for name in ('u', 'dt', 'B', 'C', 'z')}
        parameters = {name: x for name, x in tensors._asdict().items() if name not in activations}
        y, last_state = defocus_scan_reference(
            **activations, **parameters, delta_scale=delta_scale, group_size=group_size, eps=eps
        )
    return y.to(u.dtype), last_state


_IMPLEMENTATIONS = {'cuda': _compiled, 'triton': _triton, 'cpp': _compiled, 'reference': _reference}


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
    """Compute the operations between the projections of the De-focus Mamba mixer (arXiv 2406.04342, section 3).

    For every channel of every sequence::

        delta_t = softplus(dt_t + dt_bias) / delta_scale
        B_t, C_t = rotate(B_t), rotate(C_t)              (with freq; see mmdefocus.ops.defocus_scan.rotary)
        h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t
        y_t = sum over n of C_t h_t
        y_t = y_t / sqrt(mean of y_t² over the channel's group + eps)
        y_t = (y_t + D u_t) silu(z_t)

    Channels come last, so that slices of the projections' outputs enter without a copy. Half types are converted on
    load and store; arithmetic is float32 (float64 for float64), whatever autocast says.

    Args:
        u: Input, (B, L, E), float16, bfloat16, float32 or float64.
        dt: Step sizes before the softplus, (B, L, E), of the type of ``u``.
        A: (E, N), real; negative for a decaying state.
        B: Input projection, (B, L, N), of the type of ``u``.
        C: Output projection, as B.
        D: Weight of the skip connection, (E).
        z: Gate, (B, L, E), of the type of ``u``.
        dt_bias: Bias of ``dt``, (E).
        freq: Rotary frequencies, (N), N even, radians per unit of position; None for no rotation.
        positions: (L), float32 (float64 for float64), not differentiable; by default 0, 1, ….
        initial_state: h_{-1}, (B, E, N), float32 (float64 for float64); by default 0.
        delta_scale: Divides the step sizes; positive.
        group_size: Channels per group of the norm; divides E.
        eps: Added to the mean square.
        return_last_state: Whether to return the final state, too. It is differentiable. A second call continues the
            sequence if it gets this state as ``initial_state`` and the ``positions`` that follow.
        backend: A name in :func:`mmdefocus.ops.available_backends`; None chooses by device and type.

    Returns:
        y (B, L, E) of the type of ``u``; with ``return_last_state``, also the final state (B, E, N) in float32 (float64
        for float64).

    Raises:
        TypeError: Complex, integer or mixed types.
        ValueError: Mismatched shapes, an empty sequence or state, tensors on different devices, an odd N with
            ``freq``, a ``delta_scale`` that is not positive, an unknown backend.
        RuntimeError: The named backend cannot run here.
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
    check_shapes(op, ScanTensors(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state), group_size)
    if not delta_scale > 0:
        raise ValueError(f'{op}: expected a positive delta_scale, got {delta_scale}')

    A, D, dt_bias = (parameter.to(compute) for parameter in (A, D, dt_bias))
    if freq is not None:
        freq = freq.to(compute)
        if positions is None:
            positions = torch.arange(u.shape[1], device=u.device, dtype=compute)
    tensors = ScanTensors(u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state)
    unsupported = {
        'cuda': CUDA_LIMITS.unsupported_scan(A.shape[1], group_size),
        'triton': TRITON_LIMITS.unsupported_scan(A.shape[1], group_size),
    }
    implementation = _IMPLEMENTATIONS[choose_backend(backend, u.device, u.dtype, _IMPLEMENTATIONS, unsupported)]
    y, last_state = implementation(tensors, float(delta_scale), group_size, float(eps))
    return (y, last_state) if return_last_state else y
