"""Triton kernels of neighbourhood attention; :mod:`mmdefocus.ops.neighbourhood_attention.triton` launches them.

A program has a tile of queries (of keys, for their gradients) of one head. In step (a, b) of its loop, every query
takes key (a, b) of its own window, so no logit outside of a window is computed, and the keys of a tile overlap in the
cache. Products and sums run in float32, whatever the types of the tensors.

Shapes: B batch, h heads, H and W rows and columns of the map, d channels of a head (D, padded to CHANNELS), K side of
the neighbourhood, M pixels of a tile. `d_x` is the gradient of x.
"""

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.0e38)  # the lowest logit so far, before the first: -inf - -inf would be NaN


@triton.jit
def _tile(height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return head, rows and columns of the pixels (M), and which are in the map; the others repeat the last one.

    The grid has one dimension, because the others of a CUDA grid end at 65,535. The head is 64 bits wide: it is the
    large factor of offsets.
    """
    tiles_x = tl.cdiv(width, COLUMNS)
    tiles = tl.cdiv(height, ROWS) * tiles_x
    program = tl.program_id(0)
    tile = program % tiles
    pixel = tl.arange(0, ROWS * COLUMNS)
    row = tile // tiles_x * ROWS + pixel // COLUMNS
    column = tile % tiles_x * COLUMNS + pixel % COLUMNS
    valid = (row < height) & (column < width)
    return (program // tiles).to(tl.int64), tl.minimum(row, height - 1), tl.minimum(column, width - 1), valid


@triton.jit
def _window_start(position, length, K: tl.constexpr):
    return tl.minimum(tl.maximum(position - K // 2, 0), length - K)


@triton.jit
def _first_query(position, K: tl.constexpr):
    """Return the first row (column) of the queries that attend to a key."""
    return tl.where(position < K, 0, position - K // 2)


@triton.jit
def _last_query(position, length, K: tl.constexpr):
    return tl.where(position >= length - K, length - 1, position + K // 2)


@triton.jit
def _load(x, token, mask, D: tl.constexpr, CHANNELS: tl.constexpr):
    """Load the channels of tokens in float32, (M, CHANNELS), zeros where ``mask`` (M) is false and beyond D."""
    channel = tl.arange(0, CHANNELS)[None, :]
    return tl.load(x + token[:, None] * D + channel, mask[:, None] & (channel < D), 0.0).to(tl.float32)


@triton.jit
def _store(x, values, token, mask, D: tl.constexpr, CHANNELS: tl.constexpr):
    channel = tl.arange(0, CHANNELS)[None, :]
    tl.store(x + token[:, None] * D + channel, values, mask[:, None] & (channel < D))


@triton.jit
def forward(
    q, k, v, bias, y, lse,
    scale, heads, height, width, K: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    head, row, column, valid = _tile(height, width, ROWS, COLUMNS)
    first_row, first_column = _window_start(row, height, K), _window_start(column, width, K)
    token = (head * height + row) * width + column
    first_key = (head * height + first_row) * width + first_column
    SIDE: tl.constexpr = 2 * K - 1
    bias += head % heads * (SIDE * SIDE) + (first_row - row + K - 1) * SIDE + first_column - column + K - 1
    query = _load(q, token, valid, D, CHANNELS) * scale
    # Online softmax: running maximum m, sum of exponentials l and weighted values acc.
    m = tl.full((ROWS * COLUMNS,), LOWEST, tl.float32)
    l = tl.zeros((ROWS * COLUMNS,), tl.float32)
    acc = tl.zeros((ROWS * COLUMNS, CHANNELS), tl.float32)
    for a in range(K):
        for b in range(K):
            key = first_key + a * width + b
            logit = tl.sum(query * _load(k, key, valid, D, CHANNELS), 1) + tl.load(bias + a * SIDE + b)
            m_new = tl.maximum(m, logit)
            alpha, p = tl.exp(m - m_new), tl.exp(logit - m_new)
            acc = acc * alpha[:, None] + p[:, None] * _load(v, key, valid, D, CHANNELS)
            m, l = m_new, l * alpha + p
    _store(y, acc / l[:, None], token, valid, D, CHANNELS)
    tl.store(lse + token, m + tl.log(l), valid)


@triton.jit
def backward_queries(
    grad_output, delta, q, k, v, bias, lse, d_q,
    scale, heads, height, width, K: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    head, row, column, valid = _tile(height, width, ROWS, COLUMNS)
    first_row, first_column = _window_start(row, height, K), _window_start(column, width, K)
    token = (head * height + row) * width + column
    first_key = (head * height + first_row) * width + first_column
    SIDE: tl.constexpr = 2 * K - 1
    bias += head % heads * (SIDE * SIDE) + (first_row - row + K - 1) * SIDE + first_column - column + K - 1
    query = _load(q, token, valid, D, CHANNELS) * scale
    d_y = _load(grad_output, token, valid, D, CHANNELS)
    log_sum, row_delta = tl.load(lse + token), tl.load(delta + token)
    d_query = tl.zeros((ROWS * COLUMNS, CHANNELS), tl.float32)
    for a in range(K):
        for b in range(K):
            index = first_key + a * width + b
            key = _load(k, index, valid, D, CHANNELS)
            p = tl.exp(tl.sum(query * key, 1) + tl.load(bias + a * SIDE + b) - log_sum)
            # Gradient of the softmax: dS = P · (dP − delta) with delta = rowsum(dO · O).
            d_logit = p * (tl.sum(d_y * _load(v, index, valid, D, CHANNELS), 1) - row_delta)
            d_query += d_logit[:, None] * key
    _store(d_q, d_query * scale, token, valid, D, CHANNELS)


@triton.jit
def backward_keys(
    grad_output, delta, q, k, v, bias, lse, d_k, d_v, d_bias,
    scale, heads, height, width, K: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a tile of keys and values, and its part of that of the bias, (2K - 1, 2K - 1).

    The loop is over offsets, so that all pixels share one number of the bias. Inside the map, K of them have a query
    that attends to the key; near a border, up to 2K - 1.
    """
    head, row, column, valid = _tile(height, width, ROWS, COLUMNS)
    token = (head * height + row) * width + column
    SIDE: tl.constexpr = 2 * K - 1
    bias += head % heads * (SIDE * SIDE)
    d_bias += tl.program_id(0).to(tl.int64) * (SIDE * SIDE)
    first_row, last_row = _first_query(row, K), _last_query(row, height, K)
    first_column, last_column = _first_query(column, K), _last_query(column, width, K)
    key = _load(k, token, valid, D, CHANNELS) * scale
    value = _load(v, token, valid, D, CHANNELS)
    d_key = tl.zeros((ROWS * COLUMNS, CHANNELS), tl.float32)
    d_value = tl.zeros((ROWS * COLUMNS, CHANNELS), tl.float32)
    for a in range(tl.min(row - last_row, 0), tl.max(row - first_row, 0) + 1):
        attends_row = valid & (row - a >= first_row) & (row - a <= last_row)
        for b in range(tl.min(column - last_column, 0), tl.max(column - first_column, 0) + 1):
            attends = attends_row & (column - b >= first_column) & (column - b <= last_column)
            index = token - a * width - b
            offset = (a + K - 1) * SIDE + b + K - 1
            query = _load(q, index, attends, D, CHANNELS)
            d_y = _load(grad_output, index, attends, D, CHANNELS)
            # Infinity makes the weights of all others 0.
            log_sum = tl.load(lse + index, attends, float('inf'))
            p = tl.exp(tl.sum(query * key, 1) + tl.load(bias + offset) - log_sum)
            d_logit = p * (tl.sum(d_y * value, 1) - tl.load(delta + index, attends, 0.0))
            d_value += p[:, None] * d_y
            d_key += d_logit[:, None] * query
            tl.store(d_bias + offset, tl.sum(d_logit, 0))
    _store(d_k, d_key * scale, token, valid, D, CHANNELS)
    _store(d_v, d_value, token, valid, D, CHANNELS)
