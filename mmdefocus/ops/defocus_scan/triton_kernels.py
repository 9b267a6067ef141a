"""Triton kernels of the De-focus scan; :mod:`mmdefocus.ops.defocus_scan.triton` launches them.

A program scans a block of channels, which are whole groups of the norm, of one segment of one sequence. It steps
through the tokens with the states of the block in registers. The loop over tokens is sequential: blocks of channels,
segments and sequences already give enough programs, and a parallel scan would do log2(L) times the work.

Shapes: B batch, L tokens, E channels, N state; GROUPS groups of GROUP channels, each padded to SIZE, a power of 2, make
up a block of K = GROUPS · SIZE; STATES is N, padded likewise. Channels are contiguous; `x_batch` and `x_token` are the
other strides of x. `d_x` is the gradient of x. B and C are rotated already.
"""

import triton
import triton.language as tl

# States that the backward pass keeps in registers. They have names, s0 to s3: an array with an index that is known only
# at run time would go to local memory.
STEPS = tl.constexpr(4)


@triton.jit
def _place(segments, blocks):
    """Return the sequence, segment and block of a program.

    The first two are 64 bits wide: they are the large factors of offsets, which exceed 2³¹ in large batches.
    """
    program = tl.program_id(0)
    sequence = program // blocks // segments
    return sequence.to(tl.int64), (program // blocks % segments).to(tl.int64), program % blocks


@triton.jit
def _tile(
    block, channels, N: tl.constexpr, STATES: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """Return the channels (K) of a block and their mask, the states (STATES), offsets in (E, N) and their mask."""
    index, state = tl.arange(0, GROUPS * SIZE), tl.arange(0, STATES)
    channel = (block * GROUPS + index // SIZE) * GROUP + index % SIZE
    valid_channel = (index % SIZE < GROUP) & (channel < channels)
    # Loads outside the mask give 0: with A = 0 and B = 0, padded states stay 0 and add nothing to any sum.
    offsets, valid = channel[:, None] * N + state[None, :], valid_channel[:, None] & (state < N)[None, :]
    return channel, valid_channel, state, offsets, valid


@triton.jit
def _group_mean(x, GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr):
    """Return the mean over the group of each channel (K)."""
    # A reshape changes the layout of a tensor, which costs a trip through shared memory; one group needs none.
    if GROUPS == 1:
        means = tl.zeros_like(x) + tl.sum(x, 0) / GROUP
    else:
        sums = tl.sum(tl.reshape(x, (GROUPS, SIZE)), 1)
        means = tl.reshape(tl.broadcast_to(sums[:, None], (GROUPS, SIZE)), (GROUPS * SIZE,)) / GROUP
    return means


@triton.jit
def _load_row(x, x_batch, x_token, sequence, token, channel, valid_channel):
    """Load the channels (K) of a token in float32."""
    offset = sequence * x_batch + tl.cast(token, tl.int64) * x_token
    return tl.load(x + offset + channel, valid_channel, 0.0).to(tl.float32)


@triton.jit
def _softplus(x):
    """Return max(x, 0) + log(1 + e) with e = exp(-|x|)."""
    e = tl.exp(-tl.abs(x))
    rounded = 1.0 + e
    # log1p by Kahan's trick, for Triton has no log1p: rounding 1 + e loses digits of a small e, and the quotient
    # log(rounded) / (rounded - 1) loses the same ones, so that the errors cancel.
    log = tl.where(rounded > 1.0, tl.log(rounded) * e / tl.maximum(rounded - 1.0, 1e-30), e)
    return tl.maximum(x, 0.0) + log


@triton.jit
def _advance(h, x, delta, A, b):
    """Return the states (K, STATES) after one more token, from u, the step sizes (K) and B (STATES)."""
    return tl.exp(delta[:, None] * A) * h + (delta * x)[:, None] * b[None, :]


@triton.jit
def _output_gradients(
    h, c, x, gate, grad_output, D, eps, GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """Return the gradients (K) of ⟨C, h⟩ (before the norm), of normed + D·u, and of z, given that of y."""
    out = tl.sum(h * c[None, :], 1)
    scale = tl.rsqrt(_group_mean(out * out, GROUP, SIZE, GROUPS) + eps)
    normed = out * scale
    sigmoid = tl.sigmoid(gate)
    d_gate = grad_output * (normed + D * x) * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    d_sum = grad_output * gate * sigmoid
    d_out = scale * (d_sum - normed * _group_mean(d_sum * normed, GROUP, SIZE, GROUPS))
    return d_out, d_sum, d_gate


@triton.jit
def local_final_states(
    u, dt, B, A, dt_bias, states, deltas, u_batch, u_token, dt_batch, dt_token, length, channels, delta_scale,
    segments, tokens, N: tl.constexpr, STATES: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """Compute the local final state of each segment, from a zero initial state, and the sum of its step sizes.

    The sum is all that state passing needs besides: the decay over a whole segment is exp(A · sum of delta).
    """
    sequence, segment, block = _place(segments, tl.cdiv(channels, GROUPS * GROUP))
    channel, valid_channel, state, offsets, valid = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    A = tl.load(A + offsets, valid, 0.0)
    bias = tl.load(dt_bias + channel, valid_channel, 0.0)
    h = tl.zeros_like(A)
    total = tl.zeros_like(bias)
    # No output is needed here, so this pass does without C, z and D.
    first = segment * tokens
    for token in range(first, tl.minimum(first + tokens, length)):
        x = _load_row(u, u_batch, u_token, sequence, token, channel, valid_channel)
        step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, valid_channel)
        delta = _softplus(step + bias) / delta_scale
        b = tl.load(B + (sequence * length + token) * N + state, state < N, 0.0)
        h = _advance(h, x, delta, A, b)
        total += delta
    at = sequence * segments + segment
    tl.store(states + at * channels * N + offsets, h, valid)
    tl.store(deltas + at * channels + channel, total, valid_channel)


@triton.jit
def local_state_gradients(
    grad, u, dt, z, B, C, A, D, dt_bias, chunk_states, d_states, deltas,
    grad_batch, grad_token, u_batch, u_token, dt_batch, dt_token, z_batch, z_token,
    length, channels, delta_scale, eps, segments, tokens, chunks, N: tl.constexpr, STATES: tl.constexpr,
    GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of each segment's initial state by the y of this segment alone, and its sum of step sizes.

    A forward sweep can do this: the gradient is a sum over tokens of exp(A · deltas so far) · d_out · C.
    """
    sequence, segment, block = _place(segments, tl.cdiv(channels, GROUPS * GROUP))
    channel, valid_channel, state, offsets, valid = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    A = tl.load(A + offsets, valid, 0.0)
    D = tl.load(D + channel, valid_channel, 0.0)
    bias = tl.load(dt_bias + channel, valid_channel, 0.0)
    first = segment * tokens
    h = tl.load(chunk_states + (sequence * chunks + first // CHUNK) * channels * N + offsets, valid, 0.0)
    d_h = tl.zeros_like(A)
    total = tl.zeros_like(bias)
    for token in range(first, tl.minimum(first + tokens, length)):
        x = _load_row(u, u_batch, u_token, sequence, token, channel, valid_channel)
        step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, valid_channel)
        gate = _load_row(z, z_batch, z_token, sequence, token, channel, valid_channel)
        grad_output = _load_row(grad, grad_batch, grad_token, sequence, token, channel, valid_channel)
        delta = _softplus(step + bias) / delta_scale
        row = (sequence * length + token) * N + state
        b, c = tl.load(B + row, state < N, 0.0), tl.load(C + row, state < N, 0.0)
        h = _advance(h, x, delta, A, b)
        total += delta
        d_out, _, _ = _output_gradients(h, c, x, gate, grad_output, D, eps, GROUP, SIZE, GROUPS)
        # The decay from the segment's start up to this token; products of exponentials would accumulate rounding.
        d_h += tl.exp(total[:, None] * A) * d_out[:, None] * c[None, :]
    at = sequence * segments + segment
    tl.store(d_states + at * channels * N + offsets, d_h, valid)
    tl.store(deltas + at * channels + channel, total, valid_channel)


@triton.jit
def pass_states(A, deltas, initial, states, count, channels, segments, N: tl.constexpr, REVERSE: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """Replace local final states by the initial states of the segments, given that of the first one.

    With REVERSE, the same for gradients, from the last segment to the first.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = index < count
    size = channels * N
    sequence, offset = index // size, index % size
    rate = tl.load(A + offset, valid, 0.0)
    state = tl.load(initial + index, valid, 0.0)
    # Sequential over segments, which are few; programs are parallel over sequences, channels and states.
    for i in range(segments):
        segment = sequence * segments + (segments - 1 - i if REVERSE else i)
        local = tl.load(states + segment * size + offset, valid, 0.0)
        delta = tl.load(deltas + segment * channels + offset // N, valid, 0.0)
        tl.store(states + segment * size + offset, state, valid)
        state = tl.exp(delta * rate) * state + local


@triton.jit
def forward(
    u, dt, z, B, C, A, D, dt_bias, initial_states, y, last_state, chunk_states,
    u_batch, u_token, dt_batch, dt_token, z_batch, z_token, length, channels, delta_scale, eps,
    segments, tokens, chunks, N: tl.constexpr, STATES: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute y, the state before every chunk, and the final state, from the initial states of the segments."""
    sequence, segment, block = _place(segments, tl.cdiv(channels, GROUPS * GROUP))
    channel, valid_channel, state, offsets, valid = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    A = tl.load(A + offsets, valid, 0.0)
    D = tl.load(D + channel, valid_channel, 0.0)
    bias = tl.load(dt_bias + channel, valid_channel, 0.0)
    h = tl.load(initial_states + (sequence * segments + segment) * channels * N + offsets, valid, 0.0)
    first = segment * tokens
    end = tl.minimum(first + tokens, length)
    for start in range(first, end, CHUNK):
        # The backward pass restarts from these: a state per token would be N times the memory of the input.
        tl.store(chunk_states + (sequence * chunks + start // CHUNK) * channels * N + offsets, h, valid)
        for token in range(start, tl.minimum(start + CHUNK, end)):
            x = _load_row(u, u_batch, u_token, sequence, token, channel, valid_channel)
            step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, valid_channel)
            gate = _load_row(z, z_batch, z_token, sequence, token, channel, valid_channel)
            row = (sequence * length + token) * N + state
            b, c = tl.load(B + row, state < N, 0.0), tl.load(C + row, state < N, 0.0)
            h = _advance(h, x, _softplus(step + bias) / delta_scale, A, b)
            out = tl.sum(h * c[None, :], 1)
            normed = out * tl.rsqrt(_group_mean(out * out, GROUP, SIZE, GROUPS) + eps)
            result = (normed + D * x) * gate * tl.sigmoid(gate)
            tl.store(y + (sequence * length + token) * channels + channel, result, valid_channel)
    tl.store(last_state + sequence * channels * N + offsets, h, valid & (end == length))


@triton.jit
def backward(
    grad, u, dt, z, B, C, A, D, dt_bias, chunk_states, final_gradients,
    d_u, d_dt, d_z, d_B, d_C, d_A, d_D, d_bias, d_initial,
    grad_batch, grad_token, u_batch, u_token, dt_batch, dt_token, z_batch, z_token,
    length, channels, delta_scale, eps, segments, tokens, chunks, N: tl.constexpr, STATES: tl.constexpr,
    GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute all gradients from those of the segments' final states.

    Those of B and C are partial sums per block of channels, those of A, D and the bias per segment: the host adds them
    up in a fixed order, where atomics would not be deterministic.
    """
    blocks = tl.cdiv(channels, GROUPS * GROUP)
    sequence, segment, block = _place(segments, blocks)
    channel, valid_channel, state, offsets, valid = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    at = sequence * segments + segment
    A = tl.load(A + offsets, valid, 0.0)
    D = tl.load(D + channel, valid_channel, 0.0)
    bias = tl.load(dt_bias + channel, valid_channel, 0.0)
    d_h = tl.load(final_gradients + at * channels * N + offsets, valid, 0.0)
    sum_A = tl.zeros_like(A)
    sum_D = tl.zeros_like(D)
    sum_bias = tl.zeros_like(bias)
    first = segment * tokens
    end = tl.minimum(first + tokens, length)
    # The sweep goes backwards over pieces of STEPS tokens, whose states fit into registers.
    pieces = tl.cdiv(end - first, STEPS)
    for i in range(pieces):
        start = first + (pieces - 1 - i) * STEPS
        chunk = start // CHUNK
        h = tl.load(chunk_states + (sequence * chunks + chunk) * channels * N + offsets, valid, 0.0)
        # Recompute the states from the saved one, at most CHUNK - 1 tokens back. s0 … s3 is a stack of the states
        # before each token, s0 being the newest; the states before this piece drop out at its end.
        s0, s1, s2, s3 = h, h, h, h
        stop = tl.minimum(start + STEPS, end)
        for token in range(chunk * CHUNK, stop - 1):
            x = _load_row(u, u_batch, u_token, sequence, token, channel, valid_channel)
            step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, valid_channel)
            b = tl.load(B + (sequence * length + token) * N + state, state < N, 0.0)
            h = _advance(h, x, _softplus(step + bias) / delta_scale, A, b)
            s0, s1, s2, s3 = h, s0, s1, s2
        for j in range(stop - start):
            token = stop - 1 - j
            # Only states are kept between the two loops; everything else is recomputed from the inputs.
            x = _load_row(u, u_batch, u_token, sequence, token, channel, valid_channel)
            step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, valid_channel) + bias
            gate = _load_row(z, z_batch, z_token, sequence, token, channel, valid_channel)
            grad_output = _load_row(grad, grad_batch, grad_token, sequence, token, channel, valid_channel)
            row = (sequence * length + token) * N + state
            b, c = tl.load(B + row, state < N, 0.0), tl.load(C + row, state < N, 0.0)
            delta = _softplus(step) / delta_scale
            decay = tl.exp(delta[:, None] * A)
            decayed = decay * s0
            h = decayed + (delta * x)[:, None] * b[None, :]
            d_out, d_sum, d_gate = _output_gradients(h, c, x, gate, grad_output, D, eps, GROUP, SIZE, GROUPS)
            d_h += d_out[:, None] * c[None, :]
            d_product = tl.sum(d_h * b[None, :], 1)
            d_delta = tl.sum(d_h * decayed * A, 1) + d_product * x
            d_step = d_delta / delta_scale * tl.sigmoid(step)
            sum_A += d_h * decayed * delta[:, None]
            sum_D += d_sum * x
            sum_bias += d_step
            place = (sequence * length + token) * channels + channel
            tl.store(d_u + place, d_product * delta + d_sum * D, valid_channel)
            tl.store(d_dt + place, d_step, valid_channel)
            tl.store(d_z + place, d_gate, valid_channel)
            place = ((sequence * length + token) * blocks + block) * N + state
            tl.store(d_B + place, tl.sum(d_h * (delta * x)[:, None], 0), state < N)
            tl.store(d_C + place, tl.sum(d_out[:, None] * h, 0), state < N)
            d_h = d_h * decay
            s0, s1, s2 = s1, s2, s3
    tl.store(d_A + at * channels * N + offsets, sum_A, valid)
    tl.store(d_D + at * channels + channel, sum_D, valid_channel)
    tl.store(d_bias + at * channels + channel, sum_bias, valid_channel)
    tl.store(d_initial + sequence * channels * N + offsets, d_h, valid & (segment == 0))
