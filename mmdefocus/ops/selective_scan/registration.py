"""Registration of the selective scan with torch: argument checks, fake kernels, autograd and FLOP formulas.

Shapes: B batch, E channels, L time, N state, G groups of channels that share B and C.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor

from mmdefocus.ops.backends import KERNEL_CONSTANTS, can_run_cpp, disallow_double_backward
from mmdefocus.ops.flops import Shape, register_formula
from mmdefocus.ops.kernel_limits import ceil_div
from mmdefocus.ops.validation import check_rank, check_shape, check_state


def check_shapes(
    op: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Raise ValueError unless the shapes are those documented in :func:`mmdefocus.ops.selective_scan`."""
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


def cpp_unsupported(B: Tensor, C: Tensor) -> str | None:
    """Return the reason if the C++ kernels do not support these projections, else None.

    No network of this package has projections that are constant in time, or several groups of channels.
    """
    for name, projection in (('B', B), ('C', C)):
        if projection.dim() == 2 or (projection.dim() == 4 and projection.shape[1] != 1):
            shape = tuple(projection.shape)
            return f'its kernels take {name} of shape (batch, state, length) or (batch, 1, state, length), got {shape}'
    return None


def _fake(u, delta, A, B, C):
    (batch, channels, length), state = u.shape, A.shape[1]
    chunks = ceil_div(length, KERNEL_CONSTANTS['cpu_scan_chunk'])
    return torch.empty_like(u), u.new_empty(batch, channels, state), u.new_empty(batch, chunks, state, channels)


def _fake_backward(grad_y, grad_last_state, u, delta, A, B, C, chunk_states):
    parameters = (torch.empty_like(p, memory_format=torch.contiguous_format) for p in (A, B, C))
    return torch.empty_like(u), torch.empty_like(delta), *parameters


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_y, grad_last_state, grad_chunk_states):
    u, *rest = ctx.saved_tensors
    grad_y = torch.zeros_like(u) if grad_y is None else grad_y
    return torch.ops.mmdefocus.selective_scan_backward(grad_y, grad_last_state, u, *rest)


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::selective_scan', _fake)
    torch.library.register_fake('mmdefocus::selective_scan_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::selective_scan', _backward, setup_context=_save)
    disallow_double_backward('selective_scan')


def selective_scan_flops(u: Shape, delta: Shape, A: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of a scan, B E L (7 N + 1).

    Each step of a channel takes one for delta u, and for each of its states two for exp(delta A), three for
    h_t = exp(delta A) h_{t-1} + (delta u) B and two for y_t = sum over n of C h_t.

    Args:
        u: Shape of the input: B, E and L in any order.
        delta: As ``u``.
        A: (E, N).
    """
    return prod(u) * (7 * A[1] + 1)


def selective_scan_backward_flops(grad_y: Shape, grad_last_state: Any, u: Shape, delta: Shape, A: Shape, *_, **__):
    """Return the FLOPs of the gradients of a scan, B E L (15 N + 3), without recomputing its states.

    Each state takes four for the gradients of h and C by y, two for those of h_{t-1} and exp(delta A), four for those
    of delta u and B, five for those of delta and A; each step of a channel three for delta and u by delta u.

    Args:
        grad_y, grad_last_state: Not counted.
        u, delta, A: See :func:`selective_scan_flops`.
    """
    return prod(u) * (15 * A[1] + 3)


register_formula('selective_scan', selective_scan_flops)
register_formula('selective_scan_backward', selective_scan_backward_flops)
