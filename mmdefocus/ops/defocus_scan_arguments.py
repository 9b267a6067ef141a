"""Checks of the arguments that all implementations of the De-focus scan share."""

from torch import Tensor

from mmdefocus.ops.validation import check_rank, check_shape, check_state


def check_shapes(
    op: str,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    freq: Tensor | None,
    positions: Tensor | None,
    initial_state: Tensor | None,
    group_size: int,
) -> None:
    """Raises ValueError unless the shapes are those that :func:`mmdefocus.ops.defocus_scan` tells."""
    check_rank(op, 'u', u, '(batch, length, channels)')
    check_rank(op, 'A', A, '(channels, state)')
    batch, length, channels = u.shape
    state = A.shape[1]
    if length == 0:
        raise ValueError(f'{op}: expected a sequence of at least one token, got u of shape {tuple(u.shape)}')
    check_state(op, A)
    if group_size < 1 or channels % group_size:
        raise ValueError(f'{op}: expected a group_size that divides the {channels} channels, got {group_size}')
    if freq is not None and state % 2:
        raise ValueError(f'{op}: expected an even state with freq (its channels turn in pairs), got {state}')
    for name, tensor in (('dt', dt), ('z', z)):
        check_shape(op, name, tensor, (batch, length, channels), '(batch, length, channels)')
    for name, tensor in (('B', B), ('C', C)):
        check_shape(op, name, tensor, (batch, length, state), '(batch, length, state)')
    check_shape(op, 'A', A, (channels, state), '(channels, state)')
    for name, tensor in (('D', D), ('dt_bias', dt_bias)):
        check_shape(op, name, tensor, (channels,), '(channels)')
    check_shape(op, 'freq', freq, (state,), '(state)')
    check_shape(op, 'positions', positions, (length,), '(length)')
    check_shape(op, 'initial_state', initial_state, (batch, channels, state), '(batch, channels, state)')
