"""Host functions of the De-focus scan in Triton: they cut sequences into segments, allocate and launch.

One program scans one block of channels of one segment. With few sequences there would be fewer programs than
multiprocessors, so each sequence is cut into segments that run in parallel. A first pass computes the local final state
of every segment, from a zero initial state; state passing turns these into the initial states of the segments. The
backward pass does the same with gradients, from the last segment to the first.

Shapes: B batch, L tokens, E channels, N state.
"""

import torch
from torch import Tensor

from mmdefocus.ops.kernel_limits import ceil_div

from . import triton_kernels as kernels
from .arguments import TRITON_CHUNK, ScanTensors

BLOCK_CHANNELS = 64
# Elements of a tile of channels and states per warp: 8 per thread.
TILE_PER_WARP = 256
STATE_PASSING_BLOCK = 256
MIN_SEGMENT = 64
PROGRAMS_PER_MULTIPROCESSOR = 4


def forward(tensors: ScanTensors, delta_scale: float, group_size: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the forward kernels; arguments and results as for the operator ``mmdefocus::defocus_scan_triton``."""
    grid, sizes = _launch_sizes(tensors.u, tensors.A, group_size)
    (u, dt, z), strides = _rows(tensors.u, tensors.dt, tensors.z)
    A, B, C, D, dt_bias = (x.contiguous() for x in (tensors.A, tensors.B, tensors.C, tensors.D, tensors.dt_bias))
    assert tensors.initial_state is not None
    initial_states = tensors.initial_state.contiguous()
    y, last_state = u.new_empty(u.shape), torch.empty_like(initial_states)
    chunks = ceil_div(u.shape[1], TRITON_CHUNK)
    chunk_states = A.new_empty(u.shape[0], chunks, *A.shape)
    with torch.cuda.device_of(u):
        if sizes['segments'] > 1:
            states = A.new_empty(u.shape[0], sizes['segments'], *A.shape)
            deltas = A.new_empty(states.shape[:-1])
            kernels.local_final_states[grid](
                u, dt, B, A, dt_bias, states, deltas, *strides[:4], delta_scale=delta_scale, **sizes
            )
            _pass_states(A, deltas, initial_states, states, reverse=False)
            initial_states = states
        options = dict(delta_scale=delta_scale, eps=eps, chunks=chunks, CHUNK=TRITON_CHUNK)
        kernels.forward[grid](
            u, dt, z, B, C, A, D, dt_bias, initial_states, y, last_state, chunk_states, *strides, **options, **sizes
        )
    return y, last_state, chunk_states


def backward(
    grad_y: Tensor,
    grad_last_state: Tensor,
    tensors: ScanTensors,
    chunk_states: Tensor,
    delta_scale: float,
    group_size: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Launch the backward kernels.

    Returns:
        Gradients of u, dt, A, B, C, D, z, dt_bias and the initial state.
    """
    u, dt, A, B, C, D, z, dt_bias, *_ = tensors
    (batch, length, channels), state = u.shape, A.shape[1]
    grid, sizes = _launch_sizes(u, A, group_size)
    segments = sizes['segments']
    rows, strides = _rows(grad_y, u, dt, z)
    A, B, C, D, dt_bias, final_gradients = (x.contiguous() for x in (A, B, C, D, dt_bias, grad_last_state))
    arguments = (*rows, B, C, A, D, dt_bias, chunk_states.contiguous())
    options = dict(delta_scale=delta_scale, eps=eps, chunks=chunk_states.shape[1], CHUNK=TRITON_CHUNK)
    grad_u, grad_dt, grad_z = (x.new_empty(x.shape) for x in (u, dt, z))
    grad_initial = torch.empty_like(final_gradients)
    # Partial sums, per block of channels for B and C, per segment for the others. torch.sum adds them up in a fixed
    # order; atomics would make the gradients differ from run to run.
    blocks = grid[0] // max(batch * segments, 1)
    grad_B, grad_C = (A.new_empty(batch, length, blocks, state) for _ in range(2))
    grad_A = A.new_empty(batch * segments, channels, state)
    grad_D, grad_bias = grad_A.new_empty(2, batch * segments, channels)
    with torch.cuda.device_of(u):
        if segments > 1:
            gradients = A.new_empty(batch, segments, channels, state)
            deltas = A.new_empty(gradients.shape[:-1])
            kernels.local_state_gradients[grid](*arguments, gradients, deltas, *strides, **options, **sizes)
            _pass_states(A, deltas, final_gradients, gradients, reverse=True)
            final_gradients = gradients
        kernels.backward[grid](
            *arguments, final_gradients, grad_u, grad_dt, grad_z, grad_B, grad_C, grad_A, grad_D, grad_bias,
            grad_initial, *strides, **options, **sizes,
        )  # fmt: skip
    sums = (grad_A.sum(0), grad_B.sum(2), grad_C.sum(2), grad_D.sum(0))
    return grad_u, grad_dt, *sums, grad_z, grad_bias.sum(0), grad_initial


def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU, and 1 in the interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == 'cuda' else 1


def segment_tokens(length: int, programs: int, processors: int) -> int:
    """Return the number of tokens of a segment, a multiple of ``TRITON_CHUNK``.

    Segments cost a second pass over the tokens, so a sequence is only cut if its programs would leave multiprocessors
    idle, and then such that each multiprocessor gets about four programs. This is the rule of the CUDA kernels
    (csrc/common/segments.h), with the minimum and the granularity of these kernels.

    Args:
        length: L.
        programs: Batch × blocks of channels.
        processors: Number of multiprocessors.
    """
    whole = ceil_div(length, TRITON_CHUNK) * TRITON_CHUNK
    if programs >= processors:
        return whole
    segments = ceil_div(PROGRAMS_PER_MULTIPROCESSOR * processors, max(programs, 1))
    tokens = ceil_div(ceil_div(length, segments), TRITON_CHUNK) * TRITON_CHUNK
    return min(whole, max(tokens, MIN_SEGMENT))


def _launch_sizes(u: Tensor, A: Tensor, group_size: int) -> tuple[tuple[int], dict[str, int]]:
    """Return the grid, and the sizes that all kernels but that of state passing take."""
    batch, length, channels = u.shape
    size, states = (1 << (number - 1).bit_length() for number in (group_size, A.shape[1]))
    groups = max(1, BLOCK_CHANNELS // size)
    blocks = ceil_div(channels, groups * group_size)
    tokens = segment_tokens(length, batch * blocks, multiprocessors(u.device))
    segments = ceil_div(length, tokens)
    sizes = dict(length=length, channels=channels, segments=segments, tokens=tokens)
    sizes |= dict(N=A.shape[1], STATES=states, GROUP=group_size, SIZE=size, GROUPS=groups)
    sizes |= dict(num_warps=max(1, groups * size * states // TILE_PER_WARP))
    return (batch * segments * blocks,), sizes


def _pass_states(A: Tensor, deltas: Tensor, initial: Tensor, states: Tensor, reverse: bool) -> None:
    """Replace local final states, (B, segments, E, N), by the initial states of the segments, in place."""
    (_, segments, channels, state), count = states.shape, initial.numel()
    kernels.pass_states[(ceil_div(count, STATE_PASSING_BLOCK),)](
        A, deltas, initial, states, count, channels, segments, N=state, REVERSE=reverse, BLOCK=STATE_PASSING_BLOCK
    )


def _rows(*tensors: Tensor) -> tuple[list[Tensor], list[int]]:
    """Return the tensors with contiguous channels, and their other strides."""
    rows = [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]
    return rows, [stride for x in rows for stride in x.stride()[:-1]]
