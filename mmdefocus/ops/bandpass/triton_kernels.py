"""Triton kernels of attention with a decay per channel; :mod:`mmdefocus.ops.bandpass.triton` launches them.

The loops are those of FlashAttention (arXiv 2205.14135): a program has one block of queries of one head (or of keys,
for their gradients), and loops over the other blocks. Queries and keys are scaled as they are loaded, by the decay over
their distances to the boundary between them (:mod:`mmdefocus.ops.bandpass.tiles`). Intra-block logits come precomputed.
Matrix products of half types run in that type and accumulate in float32.

Shapes: B batch, H heads, L tokens, M tokens of a block, d channels of a head (D, padded to COLS), V channels of a value
(padded to VALUES). `d_x` is the gradient of x.
"""

import triton
import triton.language as tl


@triton.jit
def _block_and_head(length, M: tl.constexpr):
    """Return the block, the head among those of all sequences, and the number of blocks.

    The grid has one dimension, because the others of a CUDA grid end at 65,535. The head is 64 bits wide: it is the
    large factor of offsets.
    """
    blocks = tl.cdiv(length, M)
    program = tl.program_id(0)
    return program % blocks, (program // blocks).to(tl.int64), blocks


@triton.jit
def _load_rows(x, start, length, WIDTH: tl.constexpr, M: tl.constexpr, COLS: tl.constexpr):
    """Load the rows (M, COLS) of the tokens from ``start`` on, with zeros beyond the sequence and beyond WIDTH."""
    token = start + tl.arange(0, M)[:, None]
    channel = tl.arange(0, COLS)[None, :]
    return tl.load(x + token * WIDTH + channel, (token < length) & (channel < WIDTH), 0.0)


@triton.jit
def _store_rows(x, values, start, length, WIDTH: tl.constexpr, M: tl.constexpr, COLS: tl.constexpr):
    token = start + tl.arange(0, M)[:, None]
    channel = tl.arange(0, COLS)[None, :]
    tl.store(x + token * WIDTH + channel, values, (token < length) & (channel < WIDTH))


@triton.jit
def _factors(rate, first, M: tl.constexpr):
    """Return exp(-λ |n|) for the distances n = first, first + 1, …, (M, COLS).

    Recomputing them is cheaper than a table of 2 L rows per head, which would double the memory traffic of the keys.
    """
    distance = tl.abs(first + tl.arange(0, M)).to(tl.float32)[:, None]
    # The product would be NaN at distance 0 for an infinite rate.
    return tl.where(distance == 0, 1.0, tl.exp(-rate[None, :] * distance))


@triton.jit
def _dot(a, b):
    # Not TF32, whose 10 bits of mantissa would be those of float16.
    return tl.dot(a, b, input_precision='ieee')


@triton.jit
def _scale_backward(d_scaled, x, factors, first, M: tl.constexpr):
    """Return the gradients of tokens that were scaled by factors, and of the rates, summed over the tokens."""
    distance = tl.abs(first + tl.arange(0, M)).to(tl.float32)[:, None]
    return d_scaled * factors, -tl.sum(distance * d_scaled * x * factors, 0)


@triton.jit
def _load_intra_block(logits, start, length, CAUSAL: tl.constexpr, M: tl.constexpr):
    """Load the logits of one block (M, M), with -inf where the causal mask applies and beyond the sequence."""
    query, key = tl.arange(0, M)[:, None], tl.arange(0, M)[None, :]
    valid = start + key < length
    if CAUSAL:
        valid = valid & (key <= query)
    return tl.where(valid, tl.load(logits + query * M + key), float('-inf'))


@triton.jit
def _tile_logits(q, k, start, length, M: tl.constexpr):
    """Return the logits (M, M) of scaled queries with the scaled keys from ``start`` on."""
    return tl.where(start + tl.arange(0, M)[None, :] < length, _dot(q, k.T), float('-inf'))


@triton.jit
def _online_softmax(logits, values, m, l, acc):
    """Add a tile to the online softmax: running maximum m, sum of exponentials l and weighted values acc."""
    m_new = tl.maximum(m, tl.max(logits, 1))
    p = tl.exp(logits - m_new[:, None])
    alpha = tl.exp(m - m_new)
    acc = acc * alpha[:, None] + _dot(p.to(values.dtype), values)
    return m_new, l * alpha + tl.sum(p, 1), acc


@triton.jit
def forward(
    q, k, v, decay, intra_block, y, lse,
    heads, length, CAUSAL: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, COLS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    block, head, blocks = _block_and_head(length, M)
    start = block * M
    q, k, v = q + head * length * D, k + head * length * D, v + head * length * V
    y, lse = y + head * length * V, lse + head * length
    intra_block += (head * blocks + block) * M * M
    channel = tl.arange(0, COLS)
    rate = tl.load(decay + (head % heads) * D + channel, channel < D, 0.0)

    # The own block first: every query attends at least to itself, so that m is finite from here on.
    logits = _load_intra_block(intra_block, start, length, CAUSAL, M)
    m = tl.max(logits, 1)
    p = tl.exp(logits - m[:, None])
    l = tl.sum(p, 1)
    values = _load_rows(v, start, length, V, M, VALUES)
    acc = _dot(p.to(values.dtype), values)
    query = _load_rows(q, start, length, D, M, COLS)
    # Boundary of the keys before: the first token of the block.
    scaled_q = (query * _factors(rate, 0, M)).to(query.dtype)
    for other in range(0, start, M):
        key = _load_rows(k, other, length, D, M, COLS)
        scaled_k = (key * _factors(rate, other - start, M)).to(key.dtype)
        logits = _tile_logits(scaled_q, scaled_k, other, length, M)
        m, l, acc = _online_softmax(logits, _load_rows(v, other, length, V, M, VALUES), m, l, acc)
    if not CAUSAL:
        # Boundary of the keys after: the first token behind the block.
        scaled_q = (query * _factors(rate, -M, M)).to(query.dtype)
        for other in range(start + M, length, M):
            key = _load_rows(k, other, length, D, M, COLS)
            scaled_k = (key * _factors(rate, other - start - M, M)).to(key.dtype)
            logits = _tile_logits(scaled_q, scaled_k, other, length, M)
            m, l, acc = _online_softmax(logits, _load_rows(v, other, length, V, M, VALUES), m, l, acc)
    # One division per query at the end, instead of one per tile.
    _store_rows(y, acc / l[:, None], start, length, V, M, VALUES)
    token = start + tl.arange(0, M)
    tl.store(lse + token, m + tl.log(l), token < length)


@triton.jit
def backward_queries(
    grad_output, delta, q, k, v, decay, intra_block, lse, d_q, d_intra_block, d_decay,
    heads, length, CAUSAL: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, COLS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one block of queries and its intra-block logits, and its part of that of the decay."""
    block, head, blocks = _block_and_head(length, M)
    start = block * M
    q, k, d_q = q + head * length * D, k + head * length * D, d_q + head * length * D
    v, grad_output = v + head * length * V, grad_output + head * length * V
    lse, delta = lse + head * length, delta + head * length
    own = head * blocks + block
    intra_block, d_intra_block, d_decay = intra_block + own * M * M, d_intra_block + own * M * M, d_decay + own * D
    channel = tl.arange(0, COLS)
    rate = tl.load(decay + (head % heads) * D + channel, channel < D, 0.0)
    token = start + tl.arange(0, M)
    log_sum = tl.load(lse + token, token < length, 0.0)[:, None]
    row_delta = tl.load(delta + token, token < length, 0.0)[:, None]
    d_y = _load_rows(grad_output, start, length, V, M, VALUES)

    # Gradient of the softmax: dS = P · (dP − delta) with delta = rowsum(dO · O), which needs no second pass over keys.
    p = tl.exp(_load_intra_block(intra_block, start, length, CAUSAL, M) - log_sum)
    d_p = _dot(d_y, _load_rows(v, start, length, V, M, VALUES).T)
    square = tl.arange(0, M)[:, None] * M + tl.arange(0, M)[None, :]
    tl.store(d_intra_block + square, p * (d_p - row_delta))

    query = _load_rows(q, start, length, D, M, COLS)
    d_query = tl.zeros((M, COLS), tl.float32)
    d_rate = tl.zeros((COLS,), tl.float32)
    for side in tl.static_range(1 if CAUSAL else 2):
        # Keys before the block, then after it; `first` is the distance of the first query to the boundary.
        first = -M * side
        low, high = (0, start) if side == 0 else (start + M, length)
        factors = _factors(rate, first, M)
        scaled_q = (query * factors).to(query.dtype)
        d_scaled = tl.zeros((M, COLS), tl.float32)
        for other in range(low, high, M):
            key = _load_rows(k, other, length, D, M, COLS)
            scaled_k = (key * _factors(rate, other - start + first, M)).to(key.dtype)
            p = tl.exp(_tile_logits(scaled_q, scaled_k, other, length, M) - log_sum)
            d_p = _dot(d_y, _load_rows(v, other, length, V, M, VALUES).T)
            d_logits = (p * (d_p - row_delta)).to(key.dtype)
            d_scaled += _dot(d_logits, scaled_k)
        more_query, more_rate = _scale_backward(d_scaled, query.to(tl.float32), factors, first, M)
        d_query += more_query
        d_rate += more_rate
    _store_rows(d_q, d_query, start, length, D, M, COLS)
    tl.store(d_decay + channel, d_rate, channel < D)


@triton.jit
def backward_keys(
    grad_output, delta, q, k, v, decay, intra_block, lse, d_k, d_v, d_decay,
    heads, length, CAUSAL: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    M: tl.constexpr, COLS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of one block of keys and values, and its part of that of the decay.

    A kernel of its own instead of one with :func:`backward_queries`: both loops would have to add to gradients of the
    other blocks, by atomics, whose order changes from run to run.
    """
    block, head, blocks = _block_and_head(length, M)
    start = block * M
    q, k, d_k = q + head * length * D, k + head * length * D, d_k + head * length * D
    v, grad_output, d_v = v + head * length * V, grad_output + head * length * V, d_v + head * length * V
    lse, delta = lse + head * length, delta + head * length
    own = head * blocks + block
    intra_block, d_decay = intra_block + own * M * M, d_decay + own * D
    channel = tl.arange(0, COLS)
    rate = tl.load(decay + (head % heads) * D + channel, channel < D, 0.0)

    # Infinity makes the weights of queries beyond the sequence 0.
    token = start + tl.arange(0, M)
    log_sum = tl.load(lse + token, token < length, float('inf'))[:, None]
    p = tl.exp(_load_intra_block(intra_block, start, length, CAUSAL, M) - log_sum)
    d_y = _load_rows(grad_output, start, length, V, M, VALUES)
    d_values = _dot(p.T.to(d_y.dtype), d_y)

    values = _load_rows(v, start, length, V, M, VALUES)
    key = _load_rows(k, start, length, D, M, COLS)
    d_key = tl.zeros((M, COLS), tl.float32)
    d_rate = tl.zeros((COLS,), tl.float32)
    for side in tl.static_range(1 if CAUSAL else 2):
        # Queries after the block, then before it. The boundary belongs to the queries, so the distance of the keys to
        # it, and with it their factors, differ from tile to tile.
        low, high = (start + M, length) if side == 0 else (0, start)
        for other in range(low, high, M):
            first = start - other - M * side
            factors = _factors(rate, first, M)
            scaled_k = (key * factors).to(key.dtype)
            query = _load_rows(q, other, length, D, M, COLS)
            scaled_q = (query * _factors(rate, -M * side, M)).to(query.dtype)
            token = other + tl.arange(0, M)
            log_sum = tl.load(lse + token, token < length, float('inf'))[:, None]
            row_delta = tl.load(delta + token, token < length, 0.0)[:, None]
            d_y = _load_rows(grad_output, other, length, V, M, VALUES)
            p = tl.exp(_tile_logits(scaled_q, scaled_k, start, length, M) - log_sum)
            d_values += _dot(p.T.to(d_y.dtype), d_y)
            d_logits = (p * (_dot(d_y, values.T) - row_delta)).to(query.dtype)
            more_key, more_rate = _scale_backward(_dot(d_logits.T, scaled_q), key.to(tl.float32), factors, first, M)
            d_key += more_key
            d_rate += more_rate
    _store_rows(d_k, d_key, start, length, D, M, COLS)
    _store_rows(d_v, d_values, start, length, V, M, VALUES)
    tl.store(d_decay + channel, d_rate, channel < D)
