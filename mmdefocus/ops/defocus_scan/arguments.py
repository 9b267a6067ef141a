"""Arguments that all implementations of the De-focus scan share, and their checks.

Shapes: B batch, L tokens, E channels, N state.
"""

from typing import NamedTuple

from torch import Tensor

from mmdefocus.ops.validation import check_rank, check_shape, check_state

# Tokens between the states that Triton's forward pass saves; a multiple of `STEPS` of its kernels.
TRITON_CHUNK = 16


class ScanTensors(NamedTuple):
    """Tensors of a scan, as documented in :func:`mmdefocus.ops.defocus_scan`, in the order of all its operators."""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    dt_bias: Tensor
    freq: Tensor | None = None
    positions: Tensor | None = None
    initial_state: Tensor | None = None


def check_shapes(op: str, tensors: ScanTensors, group_size: int) -> None:
    """Raise ValueError unless the shapes are those documented in :func:`mmdefocus.ops.defocus_scan`."""
    u, A = tensors.u, tensors.A
    check_rank(op, 'u', u, '(batch, length, channels)')
    check_rank(op, 'A', A, '(channels, state)')
    batch, length, channels = u.shape
    state = A.shape[1]
    if length == 0:
        raise ValueError(f'{op}: expected a sequence of at least one token, got u of shape {tuple(u.shape)}')
    check_state(op, A)
    if group_size < 1 or channels % group_size:
        raise ValueError(f'{op}: expected a group_size that divides the {channels} channels, got {group_size}')
    if tensors.freq is not None and state % 2:
        raise ValueError(f'{op}: expected an even state with freq (its channels rotate in pairs), got {state}')
    sizes = {'batch': batch, 'length': length, 'channels': channels, 'state': state}
    dimensions = {
        ('dt', 'z'): ('batch', 'length', 'channels'),
        ('B', 'C'): ('batch', 'length', 'state'),
        ('A',): ('channels', 'state'),
        ('D', 'dt_bias'): ('channels',),
        ('freq',): ('state',),
        ('positions',): ('length',),
        ('initial_state',): ('batch', 'channels', 'state'),
    }
    for names, axes in dimensions.items():
        for name in names:
            shape = tuple(sizes[axis] for axis in axes)
            check_shape(op, name, getattr(tensors, name), shape, f'({", ".join(axes)})')
