"""The De-focus scan by Triton: what is around the kernels of :mod:`mmdefocus.ops.triton_defocus_scan_kernels`.

Few sequences are cut into segments that run at the same time. What each makes of a state of 0 tells which states enter
them; backward, the same is done with gradients from the end. Rotations of B and C are plain PyTorch. Importing this
module does not need Triton.

Legend: B batch, L tokens, E channels, N state.
"""

import torch
from torch import Tensor

from mmdefocus.ops.backends import refuse_second_derivatives
from mmdefocus.ops.defocus_scan_arguments import check_shapes
from mmdefocus.ops.kernel_limits import TRITON_LIMITS, ceil_div, refuse
from mmdefocus.ops.rotary import learnable_rotary
from mmdefocus.ops.validation import check_shape, check_types, compute_dtype

OP = 'defocus_scan_triton'
# Tokens between the states that the forward pass saves; a multiple of `STEPS` of the kernels.
CHUNK = 16
BLOCK_CHANNELS = 64
# Numbers of a tile of channels and states that a warp has; 8 for each thread.
TILE_OF_WARP = 256
CARRIED_NUMBERS = 256
MIN_SEGMENT = 64
PROGRAMS_PER_MULTIPROCESSOR = 4


def multiprocessors(device: torch.device) -> int:
    """How many programs run at the same time at least: the multiprocessors of a GPU, and 1 in the interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == 'cuda' else 1


def segment_tokens(length: int, programs: int, parallel: int) -> int:
    """Tokens of a segment, a multiple of ``CHUNK``.

    To cut costs a second pass over the tokens, so it is done only where there are fewer programs than multiprocessors.

    Args:
        length: L.
        programs: batch × blocks of channels.
        parallel: number of multiprocessors.
    """
    tokens = length
    if programs < parallel:
        segments = ceil_div(PROGRAMS_PER_MULTIPROCESSOR * parallel, max(programs, 1))
        tokens = max(ceil_div(length, segments), MIN_SEGMENT)
    return ceil_div(tokens, CHUNK) * CHUNK


def _launch(u: Tensor, A: Tensor, group_size: int) -> tuple[tuple[int], dict[str, int]]:
    """Grid, and sizes that all kernels but that of the carry take."""
    batch, length, channels = u.shape
    size, states = (1 << (number - 1).bit_length() for number in (group_size, A.shape[1]))
    groups = max(1, BLOCK_CHANNELS // size)
    blocks = ceil_div(channels, groups * group_size)
    tokens = segment_tokens(length, batch * blocks, multiprocessors(u.device))
    segments = ceil_div(length, tokens)
    sizes = dict(length=length, channels=channels, segments=segments, tokens=tokens)
    sizes |= dict(N=A.shape[1], STATES=states, GROUP=group_size, SIZE=size, GROUPS=groups)
    sizes |= dict(num_warps=max(1, groups * size * states // TILE_OF_WARP))
    return (batch * segments * blocks,), sizes


def _check(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    initial_state: Tensor | None,
    group_size: int,
) -> None:
    activations = {'u': u, 'dt': dt, 'z': z}
    others = {'A': A, 'B': B, 'C': C, 'D': D, 'dt_bias': dt_bias, 'initial_state': initial_state}
    compute_dtype(OP, activations | others)
    check_types(OP, activations, u.dtype)
    check_types(OP, others, torch.float32)
    check_shapes(OP, u, dt, A, B, C, D, z, dt_bias, None, None, initial_state, group_size)
    refuse(OP, TRITON_LIMITS.scan_obstacle(A.shape[1], group_size))


def _carry(A: Tensor, deltas: Tensor, first: Tensor, made: Tensor, backwards: bool) -> None:
    """Replaces what segments make of 0, (B, segments, E, N), by what enters them; ``first`` enters the first."""
    from mmdefocus.ops import triton_defocus_scan_kernels as kernels  # Triton need not be there

    (_, segments, channels, state), count = made.shape, first.numel()
    kernels.carry[(ceil_div(count, CARRIED_NUMBERS),)](
        A, deltas, first, made, count, channels, segments, N=state, REVERSED=backwards, NUMBERS=CARRIED_NUMBERS
    )


def _rows(*tensors: Tensor) -> tuple[list[Tensor], list[int]]:
    """The tensors with channels that are neighbours in memory, and their other strides."""
    rows = [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]
    return rows, [stride for x in rows for stride in x.stride()[:-1]]


@torch.library.custom_op('mmdefocus::defocus_scan_triton', mutates_args=())
def _scan(
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
    _check(u, dt, A, B, C, D, z, dt_bias, initial_state, group_size)
    from mmdefocus.ops import triton_defocus_scan_kernels as kernels

    grid, sizes = _launch(u, A, group_size)
    (u, dt, z), strides = _rows(u, dt, z)
    A, B, C, D, dt_bias, entering = (x.contiguous() for x in (A, B, C, D, dt_bias, initial_state))
    y, last_state = u.new_empty(u.shape), torch.empty_like(entering)
    chunks = ceil_div(u.shape[1], CHUNK)
    chunk_states = A.new_empty(u.shape[0], chunks, *A.shape)
    with torch.cuda.device_of(u):
        if sizes['segments'] > 1:
            made = A.new_empty(u.shape[0], sizes['segments'], *A.shape)
            deltas = A.new_empty(made.shape[:-1])
            kernels.segment_ends[grid](
                u, dt, B, A, dt_bias, made, deltas, *strides[:4], delta_scale=delta_scale, **sizes
            )
            _carry(A, deltas, entering, made, backwards=False)
            entering = made
        options = dict(delta_scale=delta_scale, eps=eps, chunks=chunks, CHUNK=CHUNK)
        kernels.forward[grid](
            u, dt, z, B, C, A, D, dt_bias, entering, y, last_state, chunk_states, *strides, **options, **sizes
        )
    return y, last_state, chunk_states


@torch.library.custom_op('mmdefocus::defocus_scan_triton_backward', mutates_args=())
def _scan_backward(
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
    _check(u, dt, A, B, C, D, z, dt_bias, None, group_size)
    from mmdefocus.ops import triton_defocus_scan_kernels as kernels

    (batch, length, channels), state = u.shape, A.shape[1]
    check_types(OP, {'grad_y': grad_y}, u.dtype)
    check_types(OP, {'grad_last_state': grad_last_state, 'chunk_states': chunk_states}, torch.float32)
    check_shape(OP, 'grad_y', grad_y, u.shape, '(batch, length, channels)')
    check_shape(OP, 'grad_last_state', grad_last_state, (batch, channels, state), '(batch, channels, state)')
    chunks = (batch, ceil_div(length, CHUNK), channels, state)
    check_shape(OP, 'chunk_states', chunk_states, chunks, '(batch, chunks, channels, state)')
    grid, sizes = _launch(u, A, group_size)
    segments = sizes['segments']
    rows, strides = _rows(grad_y, u, dt, z)
    A, B, C, D, dt_bias, entering = (x.contiguous() for x in (A, B, C, D, dt_bias, grad_last_state))
    arguments = (*rows, B, C, A, D, dt_bias, chunk_states.contiguous())
    options = dict(delta_scale=delta_scale, eps=eps, chunks=chunk_states.shape[1], CHUNK=CHUNK)
    d_u, d_dt, d_z = (x.new_empty(x.shape) for x in (u, dt, z))
    d_initial = torch.empty_like(entering)
    # Of each block of channels, and of each segment.
    blocks = grid[0] // max(batch * segments, 1)
    d_B, d_C = (A.new_empty(batch, length, blocks, state) for _ in range(2))
    d_A = A.new_empty(batch * segments, channels, state)
    d_D, d_bias = d_A.new_empty(2, batch * segments, channels)
    with torch.cuda.device_of(u):
        if segments > 1:
            made = A.new_empty(batch, segments, channels, state)
            deltas = A.new_empty(made.shape[:-1])
            kernels.segment_gradients[grid](*arguments, made, deltas, *strides, **options, **sizes)
            _carry(A, deltas, entering, made, backwards=True)
            entering = made
        kernels.backward[grid](
            *arguments, entering, d_u, d_dt, d_z, d_B, d_C, d_A, d_D, d_bias, d_initial, *strides,
            **options, **sizes,
        )  # fmt: skip
    return d_u, d_dt, d_A.sum(0), d_B.sum(2), d_C.sum(2), d_D.sum(0), d_z, d_bias.sum(0), d_initial


@_scan.register_fake
def _(u, dt, A, B, C, D, z, dt_bias, initial_state, delta_scale, group_size, eps):
    chunk_states = A.new_empty(u.shape[0], ceil_div(u.shape[1], CHUNK), *A.shape)
    return u.new_empty(u.shape), A.new_empty(initial_state.shape), chunk_states


@_scan_backward.register_fake
def _(grad_y, grad_last_state, u, dt, A, B, C, D, z, dt_bias, chunk_states, delta_scale, group_size, eps):
    return tuple(x.new_empty(x.shape) for x in (u, dt, A, B, C, D, z, dt_bias, grad_last_state))


def _save(ctx, inputs, output):
    *tensors, _, ctx.delta_scale, ctx.group_size, ctx.eps = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_y, grad_last_state, grad_chunk_states):
    u, *rest, chunk_states = ctx.saved_tensors
    grad_y = torch.zeros_like(u) if grad_y is None else grad_y
    if grad_last_state is None:
        grad_last_state = torch.zeros_like(chunk_states[:, 0])
    options = (ctx.delta_scale, ctx.group_size, ctx.eps)
    return *_scan_backward(grad_y, grad_last_state, u, *rest, chunk_states, *options), None, None, None


_scan.register_autograd(_differentiate, setup_context=_save)
refuse_second_derivatives('defocus_scan_triton')


def scan(
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
    delta_scale: float,
    group_size: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmdefocus.ops.defocus_scan`; u, dt, B, C and z of one type, all else float32.

    Returns:
        y (B, L, E) of the type of ``u`` and the state after the last token (B, E, N), float32.
    """
    B, C = B.float(), C.float()
    if freq is not None:
        assert positions is not None
        B, C = (learnable_rotary(x, positions, freq) for x in (B, C))
    if initial_state is None:
        initial_state = A.new_zeros(u.shape[0], *A.shape)
    y, last_state, _ = _scan(u, dt, A, B, C, D, z, dt_bias, initial_state, delta_scale, group_size, eps)
    return y, last_state
