"""Triton kernels of the De-focus scan; :mod:`mmdefocus.ops.triton_defocus_scan` launches them.

A program has a block of channels, which are whole groups of the norm, of one segment of one sequence. It steps through
the tokens with the states of the block in registers.

Legend: B batch, L tokens, E channels, N state; GROUPS groups of GROUP channels, each padded to SIZE, a power of 2, make
up a block of K = GROUPS · SIZE; STATES is N, padded likewise. Rows of channels are neighbours in memory; `x_batch` and
`x_token` are the other strides of x. `d_x` is the gradient of x. B and C have been rotated.
"""

import triton
import triton.language as tl

# States that the backward pass has in registers, by name, which needs no index: s0 to s3.
STEPS = tl.constexpr(4)


@triton.jit
def _place(segments, blocks):
    """Sequence, segment and block of a program. Offsets need 64 bits; the first two are their large factors."""
    program = tl.program_id(0)
    sequence = program // blocks // segments
    return sequence.to(tl.int64), (program // blocks % segments).to(tl.int64), program % blocks


@triton.jit
def _tile(
    block, channels, N: tl.constexpr, STATES: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """Channels of a block (K) and which are there, the states (STATES), places in (E, N) and which are there."""
    index, state = tl.arange(0, GROUPS * SIZE), tl.arange(0, STATES)
    channel = (block * GROUPS + index // SIZE) * GROUP + index % SIZE
    present = (index % SIZE < GROUP) & (channel < channels)
    return channel, present, state, channel[:, None] * N + state[None, :], present[:, None] & (state < N)[None, :]


@triton.jit
def _group_mean(x, GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr):
    """The mean over the group of each channel (K)."""
    if GROUPS == 1:
        means = tl.zeros_like(x) + tl.sum(x, 0) / GROUP
    else:
        sums = tl.sum(tl.reshape(x, (GROUPS, SIZE)), 1)
        means = tl.reshape(tl.broadcast_to(sums[:, None], (GROUPS, SIZE)), (GROUPS * SIZE,)) / GROUP
    return means


@triton.jit
def _load_row(x, x_batch, x_token, sequence, token, channel, present):
    """The channels (K) of a token in float32."""
    offset = sequence * x_batch + tl.cast(token, tl.int64) * x_token
    return tl.load(x + offset + channel, present, 0.0).to(tl.float32)


@triton.jit
def _softplus(x):
    """max(x, 0) + log(1 + e), e = exp(-|x|)."""
    e = tl.exp(-tl.abs(x))
    rounded = 1.0 + e
    # What the rounding takes from a small e is missing in both parts of the quotient, and cancels.
    log = tl.where(rounded > 1.0, tl.log(rounded) * e / tl.maximum(rounded - 1.0, 1e-30), e)
    return tl.maximum(x, 0.0) + log


@triton.jit
def _advance(h, x, delta, A, b):
    """The states (K, STATES) after one more token, from u, the step sizes (K) and B (STATES)."""
    return tl.exp(delta[:, None] * A) * h + (delta * x)[:, None] * b[None, :]


@triton.jit
def _output_gradients(
    h, c, x, gate, incoming, D, eps, GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr
):  # fmt: skip
    """Gradients (K) of ⟨C, h⟩ (before the norm), of normed + D·u, and of z, by that of y."""
    out = tl.sum(h * c[None, :], 1)
    scale = tl.rsqrt(_group_mean(out * out, GROUP, SIZE, GROUPS) + eps)
    normed = out * scale
    sigmoid = tl.sigmoid(gate)
    d_gate = incoming * (normed + D * x) * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    d_sum = incoming * gate * sigmoid
    d_out = scale * (d_sum - normed * _group_mean(d_sum * normed, GROUP, SIZE, GROUPS))
    return d_out, d_sum, d_gate


@triton.jit
def segment_ends(
    u, dt, B, A, dt_bias, states, deltas, u_batch, u_token, dt_batch, dt_token, length, channels, delta_scale,
    segments, tokens, N: tl.constexpr, STATES: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """What each segment of ``tokens`` tokens makes of a state of 0, and the sum of its step sizes."""
    sequence, segment, block = _place(segments, tl.cdiv(channels, GROUPS * GROUP))
    channel, present, state, square, inside = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    A = tl.load(A + square, inside, 0.0)
    bias = tl.load(dt_bias + channel, present, 0.0)
    h = tl.zeros_like(A)
    total = tl.zeros_like(bias)
    first = segment * tokens
    for token in range(first, tl.minimum(first + tokens, length)):
        x = _load_row(u, u_batch, u_token, sequence, token, channel, present)
        step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, present)
        delta = _softplus(step + bias) / delta_scale
        b = tl.load(B + (sequence * length + token) * N + state, state < N, 0.0)
        h = _advance(h, x, delta, A, b)
        total += delta
    at = sequence * segments + segment
    tl.store(states + at * channels * N + square, h, inside)
    tl.store(deltas + at * channels + channel, total, present)


@triton.jit
def segment_gradients(
    grad, u, dt, z, B, C, A, D, dt_bias, chunk_states, d_states, deltas,
    grad_batch, grad_token, u_batch, u_token, dt_batch, dt_token, z_batch, z_token,
    length, channels, delta_scale, eps, segments, tokens, chunks, N: tl.constexpr, STATES: tl.constexpr,
    GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients of the state before each segment by the y of this segment alone, and the sum of its step sizes."""
    sequence, segment, block = _place(segments, tl.cdiv(channels, GROUPS * GROUP))
    channel, present, state, square, inside = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    A = tl.load(A + square, inside, 0.0)
    D = tl.load(D + channel, present, 0.0)
    bias = tl.load(dt_bias + channel, present, 0.0)
    first = segment * tokens
    h = tl.load(chunk_states + (sequence * chunks + first // CHUNK) * channels * N + square, inside, 0.0)
    d_h = tl.zeros_like(A)
    total = tl.zeros_like(bias)
    for token in range(first, tl.minimum(first + tokens, length)):
        x = _load_row(u, u_batch, u_token, sequence, token, channel, present)
        step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, present)
        gate = _load_row(z, z_batch, z_token, sequence, token, channel, present)
        incoming = _load_row(grad, grad_batch, grad_token, sequence, token, channel, present)
        delta = _softplus(step + bias) / delta_scale
        row = (sequence * length + token) * N + state
        b, c = tl.load(B + row, state < N, 0.0), tl.load(C + row, state < N, 0.0)
        h = _advance(h, x, delta, A, b)
        total += delta
        d_out, _, _ = _output_gradients(h, c, x, gate, incoming, D, eps, GROUP, SIZE, GROUPS)
        d_h += tl.exp(total[:, None] * A) * d_out[:, None] * c[None, :]
    at = sequence * segments + segment
    tl.store(d_states + at * channels * N + square, d_h, inside)
    tl.store(deltas + at * channels + channel, total, present)


@triton.jit
def carry(A, deltas, initial, states, count, channels, segments, N: tl.constexpr, REVERSED: tl.constexpr,
          NUMBERS: tl.constexpr):  # fmt: skip
    """Turns what each segment makes of 0 into what enters it, from ``initial``; REVERSED, from the last segment on."""
    index = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    inside = index < count
    size = channels * N
    sequence, place = index // size, index % size
    rate = tl.load(A + place, inside, 0.0)
    entering = tl.load(initial + index, inside, 0.0)
    for i in range(segments):
        segment = sequence * segments + (segments - 1 - i if REVERSED else i)
        made = tl.load(states + segment * size + place, inside, 0.0)
        delta = tl.load(deltas + segment * channels + place // N, inside, 0.0)
        tl.store(states + segment * size + place, entering, inside)
        entering = tl.exp(delta * rate) * entering + made


@triton.jit
def forward(
    u, dt, z, B, C, A, D, dt_bias, entering, y, last_state, chunk_states,
    u_batch, u_token, dt_batch, dt_token, z_batch, z_token, length, channels, delta_scale, eps,
    segments, tokens, chunks, N: tl.constexpr, STATES: tl.constexpr, GROUP: tl.constexpr, SIZE: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """y, the state before every chunk, and the last one, from the states that enter the segments."""
    sequence, segment, block = _place(segments, tl.cdiv(channels, GROUPS * GROUP))
    channel, present, state, square, inside = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    A = tl.load(A + square, inside, 0.0)
    D = tl.load(D + channel, present, 0.0)
    bias = tl.load(dt_bias + channel, present, 0.0)
    h = tl.load(entering + (sequence * segments + segment) * channels * N + square, inside, 0.0)
    first = segment * tokens
    end = tl.minimum(first + tokens, length)
    for start in range(first, end, CHUNK):
        tl.store(chunk_states + (sequence * chunks + start // CHUNK) * channels * N + square, h, inside)
        for token in range(start, tl.minimum(start + CHUNK, end)):
            x = _load_row(u, u_batch, u_token, sequence, token, channel, present)
            step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, present)
            gate = _load_row(z, z_batch, z_token, sequence, token, channel, present)
            row = (sequence * length + token) * N + state
            b, c = tl.load(B + row, state < N, 0.0), tl.load(C + row, state < N, 0.0)
            h = _advance(h, x, _softplus(step + bias) / delta_scale, A, b)
            out = tl.sum(h * c[None, :], 1)
            normed = out * tl.rsqrt(_group_mean(out * out, GROUP, SIZE, GROUPS) + eps)
            result = (normed + D * x) * gate * tl.sigmoid(gate)
            tl.store(y + (sequence * length + token) * channels + channel, result, present)
    tl.store(last_state + sequence * channels * N + square, h, inside & (end == length))


@triton.jit
def backward(
    grad, u, dt, z, B, C, A, D, dt_bias, chunk_states, entering,
    d_u, d_dt, d_z, d_B, d_C, d_A, d_D, d_bias, d_initial,
    grad_batch, grad_token, u_batch, u_token, dt_batch, dt_token, z_batch, z_token,
    length, channels, delta_scale, eps, segments, tokens, chunks, N: tl.constexpr, STATES: tl.constexpr,
    GROUP: tl.constexpr, SIZE: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """All gradients, from those of the states after the segments; of B and C by block, of A, D, bias by segment."""
    blocks = tl.cdiv(channels, GROUPS * GROUP)
    sequence, segment, block = _place(segments, blocks)
    channel, present, state, square, inside = _tile(block, channels, N, STATES, GROUP, SIZE, GROUPS)
    at = sequence * segments + segment
    A = tl.load(A + square, inside, 0.0)
    D = tl.load(D + channel, present, 0.0)
    bias = tl.load(dt_bias + channel, present, 0.0)
    d_h = tl.load(entering + at * channels * N + square, inside, 0.0)
    sum_A = tl.zeros_like(A)
    sum_D = tl.zeros_like(D)
    sum_bias = tl.zeros_like(bias)
    first = segment * tokens
    end = tl.minimum(first + tokens, length)
    pieces = tl.cdiv(end - first, STEPS)
    for i in range(pieces):
        start = first + (pieces - 1 - i) * STEPS
        chunk = start // CHUNK
        h = tl.load(chunk_states + (sequence * chunks + chunk) * channels * N + square, inside, 0.0)
        # A stack of the states before each token, s0 being the top; those before the piece fall out of it.
        s0, s1, s2, s3 = h, h, h, h
        stop = tl.minimum(start + STEPS, end)
        for token in range(chunk * CHUNK, stop - 1):
            x = _load_row(u, u_batch, u_token, sequence, token, channel, present)
            step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, present)
            b = tl.load(B + (sequence * length + token) * N + state, state < N, 0.0)
            h = _advance(h, x, _softplus(step + bias) / delta_scale, A, b)
            s0, s1, s2, s3 = h, s0, s1, s2
        for j in range(stop - start):
            token = stop - 1 - j
            x = _load_row(u, u_batch, u_token, sequence, token, channel, present)
            step = _load_row(dt, dt_batch, dt_token, sequence, token, channel, present) + bias
            gate = _load_row(z, z_batch, z_token, sequence, token, channel, present)
            incoming = _load_row(grad, grad_batch, grad_token, sequence, token, channel, present)
            row = (sequence * length + token) * N + state
            b, c = tl.load(B + row, state < N, 0.0), tl.load(C + row, state < N, 0.0)
            delta = _softplus(step) / delta_scale
            decayed = tl.exp(delta[:, None] * A)
            kept = decayed * s0
            h = kept + (delta * x)[:, None] * b[None, :]
            d_out, d_sum, d_gate = _output_gradients(h, c, x, gate, incoming, D, eps, GROUP, SIZE, GROUPS)
            d_h += d_out[:, None] * c[None, :]
            d_product = tl.sum(d_h * b[None, :], 1)
            d_delta = tl.sum(d_h * kept * A, 1) + d_product * x
            d_step = d_delta / delta_scale * tl.sigmoid(step)
            sum_A += d_h * kept * delta[:, None]
            sum_D += d_sum * x
            sum_bias += d_step
            place = (sequence * length + token) * channels + channel
            tl.store(d_u + place, d_product * delta + d_sum * D, present)
            tl.store(d_dt + place, d_step, present)
            tl.store(d_z + place, d_gate, present)
            place = ((sequence * length + token) * blocks + block) * N + state
            tl.store(d_B + place, tl.sum(d_h * (delta * x)[:, None], 0), state < N)
            tl.store(d_C + place, tl.sum(d_out[:, None] * h, 0), state < N)
            d_h = d_h * decayed
            s0, s1, s2 = s1, s2, s3
    tl.store(d_A + at * channels * N + square, sum_A, inside)
    tl.store(d_D + at * channels + channel, sum_D, present)
    tl.store(d_bias + at * channels + channel, sum_bias, present)
    tl.store(d_initial + sequence * channels * N + square, d_h, inside & (segment == 0))
