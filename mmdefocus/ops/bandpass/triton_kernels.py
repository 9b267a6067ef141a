"""Triton kernels of attention with a learnable band-pass; :mod:`mmdefocus.ops.triton_bandpass_attention` launches them.

The tiles are those of :mod:`mmdefocus.ops.bandpass_tiles`: queries and keys turn by the factors of their distances to
the boundary between them, on their way from memory. Logits between tokens of one block are given. Products of half
types run in that type and add up in float32.

Legend: B batch, H heads, L tokens, M tokens of a block, d channels of a head, P = d / 2 pairs, V channels of a value;
`d_x` is the gradient of x. A program has one block of one head.
"""

import triton
import triton.language as tl


@triton.jit
def _place(length, M: tl.constexpr):
    """Block, head among those of all sequences, and number of blocks.

    All programs are in the first dimension of the grid: the others end at 65,535. Offsets need 64 bits.
    """
    blocks = tl.cdiv(length, M)
    program = tl.program_id(0)
    return program % blocks, (program // blocks).to(tl.int64), blocks


@triton.jit
def _load_factors(factors, first, zero, P: tl.constexpr, M: tl.constexpr, PAIRS: tl.constexpr):
    """Real and imaginary parts (M, PAIRS) for the distances first, first + 1, …; 0 beyond the table and beyond P."""
    index = zero + first + tl.arange(0, M)[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    inside = (index <= 2 * zero) & (index >= 0) & (pair < P)
    pointer = factors + (index * P + pair) * 2
    return tl.load(pointer, inside, 0.0), tl.load(pointer + 1, inside, 0.0)


@triton.jit
def _load_pairs(x, start, length, P: tl.constexpr, M: tl.constexpr, PAIRS: tl.constexpr):
    """Even and odd channels of the tokens from ``start`` on, (M, PAIRS) each in float32; 0 beyond the end."""
    token = start + tl.arange(0, M)[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    inside = (token < length) & (pair < P)
    pointer = x + (token * P + pair) * 2
    return tl.load(pointer, inside, 0.0).to(tl.float32), tl.load(pointer + 1, inside, 0.0).to(tl.float32)


@triton.jit
def _load_turned(x, factors, start, first, zero, length, P: tl.constexpr, M: tl.constexpr, PAIRS: tl.constexpr):
    """Tokens from ``start`` on, turned by the factors of the distances from ``first`` on, in the type of x."""
    even, odd = _load_pairs(x, start, length, P, M, PAIRS)
    re, im = _load_factors(factors, first, zero, P, M, PAIRS)
    dtype = x.dtype.element_ty
    return (even * re - odd * im).to(dtype), (even * im + odd * re).to(dtype)


@triton.jit
def _load_rows(x, start, length, V: tl.constexpr, M: tl.constexpr, VALUES: tl.constexpr):
    token = start + tl.arange(0, M)[:, None]
    channel = tl.arange(0, VALUES)[None, :]
    return tl.load(x + token * V + channel, (token < length) & (channel < V), 0.0)


@triton.jit
def _dot(a, b):
    return tl.dot(a, b, input_precision='ieee')


@triton.jit
def _turn_back(d_re, d_im, even, odd, re, im, first, M: tl.constexpr):
    """Gradients of the channels of tokens that were turned, and of λ and θ, summed over the tokens."""
    distance = (first + tl.arange(0, M)).to(tl.float32)[:, None]
    x_re, x_im = even * re - odd * im, even * im + odd * re
    d_decay = -tl.sum(tl.abs(distance) * (d_re * x_re + d_im * x_im), 0)
    d_freq = tl.sum(distance * (d_im * x_re - d_re * x_im), 0)
    return d_re * re + d_im * im, d_im * re - d_re * im, d_decay, d_freq


@triton.jit
def _store_pairs(x, even, odd, start, length, P: tl.constexpr, M: tl.constexpr, PAIRS: tl.constexpr):
    token = start + tl.arange(0, M)[:, None]
    pair = tl.arange(0, PAIRS)[None, :]
    inside = (token < length) & (pair < P)
    pointer = x + (token * P + pair) * 2
    tl.store(pointer, even, inside)
    tl.store(pointer + 1, odd, inside)


@triton.jit
def _store_rows(x, values, start, length, V: tl.constexpr, M: tl.constexpr, VALUES: tl.constexpr):
    token = start + tl.arange(0, M)[:, None]
    channel = tl.arange(0, VALUES)[None, :]
    tl.store(x + token * V + channel, values, (token < length) & (channel < V))


@triton.jit
def _load_inside(inside, start, length, CAUSAL: tl.constexpr, M: tl.constexpr):
    """Logits of one block (M, M); -inf where the query does not see the key, or there is none."""
    query, key = tl.arange(0, M)[:, None], tl.arange(0, M)[None, :]
    seen = start + key < length
    if CAUSAL:
        seen = seen & (key <= query)
    return tl.where(seen, tl.load(inside + query * M + key), float('-inf'))


@triton.jit
def _tile_logits(q_re, q_im, k_re, k_im, other, length, M: tl.constexpr):
    logits = _dot(q_re, k_re.T) + _dot(q_im, k_im.T)
    return tl.where(other + tl.arange(0, M)[None, :] < length, logits, float('-inf'))


@triton.jit
def _add_tile(logits, values, peak, total, y):
    """One step of the softmax that meets its logits tile by tile."""
    new_peak = tl.maximum(peak, tl.max(logits, 1))
    weights = tl.exp(logits - new_peak[:, None])
    fading = tl.exp(peak - new_peak)
    y = y * fading[:, None] + _dot(weights.to(values.dtype), values)
    return new_peak, total * fading + tl.sum(weights, 1), y


@triton.jit
def forward(
    q, k, v, factors, inside, y, lse,
    heads, length, CAUSAL: tl.constexpr, P: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, PAIRS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    block, head, blocks = _place(length, M)
    start, zero = block * M, length - 1
    q, k = q + head * length * 2 * P, k + head * length * 2 * P
    v, y, lse = v + head * length * V, y + head * length * V, lse + head * length
    factors += (head % heads) * (2 * length - 1) * 2 * P
    inside += (head * blocks + block) * M * M

    logits = _load_inside(inside, start, length, CAUSAL, M)
    peak = tl.max(logits, 1)
    weights = tl.exp(logits - peak[:, None])
    total = tl.sum(weights, 1)
    values = _load_rows(v, start, length, V, M, VALUES)
    out = _dot(weights.to(values.dtype), values)
    q_re, q_im = _load_turned(q, factors, start, 0, zero, length, P, M, PAIRS)
    for other in range(0, start, M):
        k_re, k_im = _load_turned(k, factors, other, other - start, zero, length, P, M, PAIRS)
        values = _load_rows(v, other, length, V, M, VALUES)
        logits = _tile_logits(q_re, q_im, k_re, k_im, other, length, M)
        peak, total, out = _add_tile(logits, values, peak, total, out)
    if not CAUSAL:
        stop = start + M
        q_re, q_im = _load_turned(q, factors, start, -M, zero, length, P, M, PAIRS)
        for other in range(stop, length, M):
            k_re, k_im = _load_turned(k, factors, other, other - stop, zero, length, P, M, PAIRS)
            values = _load_rows(v, other, length, V, M, VALUES)
            logits = _tile_logits(q_re, q_im, k_re, k_im, other, length, M)
            peak, total, out = _add_tile(logits, values, peak, total, out)
    _store_rows(y, out / total[:, None], start, length, V, M, VALUES)
    token = start + tl.arange(0, M)
    tl.store(lse + token, peak + tl.log(total), token < length)


@triton.jit
def backward_queries(
    grad, mean, q, k, v, factors, inside, lse, d_q, d_inside, d_filter,
    heads, length, CAUSAL: tl.constexpr, P: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, PAIRS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of queries and of the logits inside it; those of λ and θ, as far as queries turn."""
    block, head, blocks = _place(length, M)
    start, zero = block * M, length - 1
    q, k, d_q = q + head * length * 2 * P, k + head * length * 2 * P, d_q + head * length * 2 * P
    v, grad, lse, mean = v + head * length * V, grad + head * length * V, lse + head * length, mean + head * length
    factors += (head % heads) * (2 * length - 1) * 2 * P
    at_block = head * blocks + block
    inside, d_inside, d_filter = inside + at_block * M * M, d_inside + at_block * M * M, d_filter + at_block * 2 * P
    token = start + tl.arange(0, M)
    log_total = tl.load(lse + token, token < length, 0.0)[:, None]
    average = tl.load(mean + token, token < length, 0.0)[:, None]
    incoming = _load_rows(grad, start, length, V, M, VALUES)

    weights = tl.exp(_load_inside(inside, start, length, CAUSAL, M) - log_total)
    d_weights = _dot(incoming, _load_rows(v, start, length, V, M, VALUES).T)
    square = tl.arange(0, M)[:, None] * M + tl.arange(0, M)[None, :]
    tl.store(d_inside + square, weights * (d_weights - average))

    even, odd = _load_pairs(q, start, length, P, M, PAIRS)
    d_even = tl.zeros((M, PAIRS), tl.float32)
    d_odd = tl.zeros((M, PAIRS), tl.float32)
    d_decay = tl.zeros((PAIRS,), tl.float32)
    d_freq = tl.zeros((PAIRS,), tl.float32)
    for side in tl.static_range(1 if CAUSAL else 2):
        # Keys before the block, and after it.
        first = -M * side
        low, high = (0, start) if side == 0 else (start + M, length)
        re, im = _load_factors(factors, first, zero, P, M, PAIRS)
        q_re, q_im = (even * re - odd * im).to(k.dtype.element_ty), (even * im + odd * re).to(k.dtype.element_ty)
        d_re = tl.zeros((M, PAIRS), tl.float32)
        d_im = tl.zeros((M, PAIRS), tl.float32)
        for other in range(low, high, M):
            k_re, k_im = _load_turned(k, factors, other, other - start + first, zero, length, P, M, PAIRS)
            weights = tl.exp(_tile_logits(q_re, q_im, k_re, k_im, other, length, M) - log_total)
            d_weights = _dot(incoming, _load_rows(v, other, length, V, M, VALUES).T)
            d_logits = (weights * (d_weights - average)).to(k_re.dtype)
            d_re += _dot(d_logits, k_re)
            d_im += _dot(d_logits, k_im)
        more_even, more_odd, more_decay, more_freq = _turn_back(d_re, d_im, even, odd, re, im, first, M)
        d_even, d_odd, d_decay, d_freq = d_even + more_even, d_odd + more_odd, d_decay + more_decay, d_freq + more_freq
    _store_pairs(d_q, d_even, d_odd, start, length, P, M, PAIRS)
    pair = tl.arange(0, PAIRS)
    tl.store(d_filter + pair, d_decay, pair < P)
    tl.store(d_filter + P + pair, d_freq, pair < P)


@triton.jit
def backward_keys(
    grad, mean, q, k, v, factors, inside, lse, d_k, d_v, d_filter,
    heads, length, CAUSAL: tl.constexpr, P: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, PAIRS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of keys and values; those of λ and θ, as far as keys turn."""
    block, head, blocks = _place(length, M)
    start, zero = block * M, length - 1
    q, k, d_k = q + head * length * 2 * P, k + head * length * 2 * P, d_k + head * length * 2 * P
    v, grad, d_v = v + head * length * V, grad + head * length * V, d_v + head * length * V
    lse, mean = lse + head * length, mean + head * length
    factors += (head % heads) * (2 * length - 1) * 2 * P
    at_block = head * blocks + block
    inside, d_filter = inside + at_block * M * M, d_filter + at_block * 2 * P

    token = start + tl.arange(0, M)
    log_total = tl.load(lse + token, token < length, float('inf'))[:, None]
    weights = tl.exp(_load_inside(inside, start, length, CAUSAL, M) - log_total)
    incoming = _load_rows(grad, start, length, V, M, VALUES)
    d_values = _dot(weights.T.to(incoming.dtype), incoming)

    values = _load_rows(v, start, length, V, M, VALUES)
    even, odd = _load_pairs(k, start, length, P, M, PAIRS)
    d_even = tl.zeros((M, PAIRS), tl.float32)
    d_odd = tl.zeros((M, PAIRS), tl.float32)
    d_decay = tl.zeros((PAIRS,), tl.float32)
    d_freq = tl.zeros((PAIRS,), tl.float32)
    for side in tl.static_range(1 if CAUSAL else 2):
        # Queries after the block, and before it.
        low, high = (start + M, length) if side == 0 else (0, start)
        for other in range(low, high, M):
            first = start - other - M * side
            re, im = _load_factors(factors, first, zero, P, M, PAIRS)
            k_re, k_im = (even * re - odd * im).to(q.dtype.element_ty), (even * im + odd * re).to(q.dtype.element_ty)
            q_re, q_im = _load_turned(q, factors, other, -M * side, zero, length, P, M, PAIRS)
            query = other + tl.arange(0, M)
            log_total = tl.load(lse + query, query < length, float('inf'))[:, None]
            average = tl.load(mean + query, query < length, 0.0)[:, None]
            incoming = _load_rows(grad, other, length, V, M, VALUES)
            weights = tl.exp(_tile_logits(q_re, q_im, k_re, k_im, start, length, M) - log_total)
            d_values += _dot(weights.T.to(incoming.dtype), incoming)
            d_logits = (weights * (_dot(incoming, values.T) - average)).to(q_re.dtype)
            more_even, more_odd, more_decay, more_freq = _turn_back(
                _dot(d_logits.T, q_re), _dot(d_logits.T, q_im), even, odd, re, im, first, M
            )
            d_even, d_odd = d_even + more_even, d_odd + more_odd
            d_decay, d_freq = d_decay + more_decay, d_freq + more_freq
    _store_pairs(d_k, d_even, d_odd, start, length, P, M, PAIRS)
    _store_rows(d_v, d_values, start, length, V, M, VALUES)
    pair = tl.arange(0, PAIRS)
    tl.store(d_filter + pair, d_decay, pair < P)
    tl.store(d_filter + P + pair, d_freq, pair < P)
