"""The selective scan of Mamba: the recurrence behind the De-focus Mamba mixer.

Legend: B batch, E channels, L time, N state, G groups of channels that share B and C.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.backends import can_run_cpp, choose_backend, refuse_second_derivatives
from mmdefocus.ops.mamba_ssm_adapter import mamba_ssm_limit, selective_scan_mamba_ssm
from mmdefocus.ops.reference import selective_scan_reference
from mmdefocus.ops.validation import check_rank, check_shape, check_state, compute_dtype

# Steps between the states that the C++ forward pass saves (`kChunk` in csrc/cpu/selective_scan.h).
_CHUNK = 32


def _fake_forward(u, delta, A, B, C):
    (batch, channels, length), state = u.shape, A.shape[1]
    chunk_states = u.new_empty(batch, (length + _CHUNK - 1) // _CHUNK, state, channels)
    return torch.empty_like(u), u.new_empty(batch, channels, state), chunk_states


def _fake_backward(grad_y, grad_last_state, u, delta, A, B, C, chunk_states):
    parameters = (torch.empty_like(p, memory_format=torch.contiguous_format) for p in (A, B, C))
    return torch.empty_like(u), torch.empty_like(delta), *parameters


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_y, grad_last_state, grad_chunk_states):
    u, *rest = ctx.saved_tensors
    grad_y = torch.zeros_like(u) if grad_y is None else grad_y
    return torch.ops.mmdefocus.selective_scan_backward(grad_y, grad_last_state, u, *rest)


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::selective_scan', _fake_forward)
    torch.library.register_fake('mmdefocus::selective_scan_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::selective_scan', _differentiate, setup_context=_save)
    refuse_second_derivatives('selective_scan')


def _selective_scan_cpp(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    y, last_state, _ = torch.ops.mmdefocus.selective_scan(u, delta, A, B, C)
    return y, last_state


def _scan_with(
    scan: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """The recurrence by ``scan``, and what is around it in plain PyTorch."""
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    # Autocast would move the products below back into half types; the meta device has none to switch off.
    with nullcontext() if u.is_meta else torch.autocast(u.device.type, enabled=False):
        x, step, A, B, C = (tensor.to(compute) for tensor in (u, delta, A, B, C))
        if delta_bias is not None:
            step = step + delta_bias.to(compute)[:, None]
        if delta_softplus:
            step = F.softplus(step)
        B, C = (projection.unsqueeze(1) if projection.dim() == 3 else projection for projection in (B, C))
        y, last_state = scan(x, step, A, B, C)
        if D is not None:
            y = y + D.to(compute)[:, None] * x
        if z is not None:
            y = y * F.silu(z.to(compute))
    return y.to(u.dtype), last_state


_IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    'mamba_ssm': selective_scan_mamba_ssm,
    'cpp': partial(_scan_with, _selective_scan_cpp),
    'reference': partial(_scan_with, selective_scan_reference),
}


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    return_last_state: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    *,
    return_last_state: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan (Mamba, arXiv 2312.00752, section 3), with the arguments of mamba-ssm's ``selective_scan_fn``.

    For every channel, from ``h_{-1} = 0``::

        delta = softplus(delta + delta_bias)            (each part if asked for)
        h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t
        y_t = sum over n of C_t h_t  +  D u_t
        y   = y silu(z)                                 (if z is given)

    Half types compute in float32, whatever autocast says; all else in its own type. Tensors may have any strides: a
    transposed (B, L, E) view costs no copy, and the result has the strides of ``u``. NaN passes through to all later
    steps of its channel.

    Args:
        u: input, (B, E, L), float16, bfloat16, float32 or float64.
        delta: step sizes, (B, E, L).
        A: (E, N), real; negative for a decaying state.
        B: (B, N, L) or (B, G, N, L) where G divides E; or (E, N), constant in time.
        C: as B; of the two, one may be constant and the other not.
        D: weight of the direct path, (E).
        z: gate, (B, E, L).
        delta_bias: added to ``delta``, (E).
        delta_softplus: whether softplus is applied to ``delta``.
        return_last_state: whether the state after the last step is returned too. It is differentiable; with
            ``mamba_ssm``, which has no gradient of it, it cannot be had while gradients are recorded.
        backend: a name of :func:`mmdefocus.ops.available_backends`; None chooses by the device and the type.

    Returns:
        y (B, E, L) of the type of ``u``; with ``return_last_state``, also the state (B, E, N) in float32 (float64 for
        float64 inputs).

    Raises:
        TypeError: complex, integer or mixed float64 and other types.
        ValueError: shapes that do not fit, an empty sequence or state, tensors on several devices, an unknown backend.
        RuntimeError: the named backend cannot run here.
    """
    op = 'selective_scan'
    tensors = {'u': u, 'delta': delta, 'A': A, 'B': B, 'C': C, 'D': D, 'z': z, 'delta_bias': delta_bias}
    compute_dtype(op, tensors)
    _check_shapes(op, **tensors)
    recorded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors.values())
    limits = {'mamba_ssm': mamba_ssm_limit(A.shape[1], return_last_state and recorded)}
    implementation = _IMPLEMENTATIONS[choose_backend(backend, u.device, u.dtype, _IMPLEMENTATIONS, limits)]
    y, last_state = implementation(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return (y, last_state) if return_last_state else y


def _check_shapes(op, u, delta, A, B, C, D, z, delta_bias):
    check_rank(op, 'u', u, '(batch, channels, length)')
    check_rank(op, 'A', A, '(channels, state)')
    batch, channels, length = u.shape
    state = A.shape[1]
    if length == 0:
        raise ValueError(f'{op}: expected a sequence of at least one step, got u of shape {tuple(u.shape)}')
    check_state(op, A)
    check_shape(op, 'delta', delta, (batch, channels, length), '(batch, channels, length)')
    check_shape(op, 'A', A, (channels, state), '(channels, state)')
    groups = {}
    for name, projection in (('B', B), ('C', C)):
        if projection.dim() == 2:
            check_shape(op, name, projection, (channels, state), '(channels, state)')
        elif projection.dim() == 3:
            check_shape(op, name, projection, (batch, state, length), '(batch, state, length)')
            groups[name] = 1
        elif projection.dim() == 4:
            groups[name] = projection.shape[1]
            meaning = '(batch, groups, state, length)'
            check_shape(op, name, projection, (batch, groups[name], state, length), meaning)
            if groups[name] == 0 or channels % groups[name] != 0:
                raise ValueError(
                    f'{op}: expected a number of groups of {name} that divides the {channels} channels, '
                    f'got {groups[name]}'
                )
        else:
            raise ValueError(
                f'{op}: expected {name} of shape (channels, state), (batch, state, length) or '
                f'(batch, groups, state, length), got {tuple(projection.shape)}'
            )
    if len(groups) == 2 and groups['B'] != groups['C']:
        raise ValueError(f'{op}: expected B and C with the same number of groups, got {groups["B"]} and {groups["C"]}')
    check_shape(op, 'D', D, (channels,), '(channels)')
    check_shape(op, 'z', z, (batch, channels, length), '(batch, channels, length)')
    check_shape(op, 'delta_bias', delta_bias, (channels,), '(channels)')
