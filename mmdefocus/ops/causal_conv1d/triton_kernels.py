"""Triton kernels of the causal convolution; :mod:`mmdefocus.ops.causal_conv1d.triton` launches them.

A program computes a tile of tokens and channels of one sequence.

Shapes: B batch, E channels, L time, K kernel width (WIDTH).
"""

import triton
import triton.language as tl


@triton.jit
def _tile(length, channels, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the sequence, the index of the tile, and the tokens and channels of a program.

    The grid has one dimension, because the others of a CUDA grid end at 65,535. All results are 64 bits wide: they
    are factors of offsets, which exceed 2³¹ in large batches.
    """
    tiles, blocks = tl.cdiv(length, TOKENS), tl.cdiv(channels, CHANNELS)
    program = tl.program_id(0).to(tl.int64)
    tile = program // blocks % tiles
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    return program // blocks // tiles, tile, tile * TOKENS + tl.arange(0, TOKENS), channel


@triton.jit
def _load(x, token, channel, length, channels, x_channel, x_token):
    """Load a tile in float32, with zeros outside the sequence and beyond the channels."""
    valid = ((token >= 0) & (token < length))[:, None] & (channel < channels)[None, :]
    return tl.load(x + token[:, None] * x_token + channel[None, :] * x_channel, valid, 0.0).to(tl.float32)


@triton.jit
def _load_parameter(x, channel, channels):
    return tl.load(x, channel < channels, 0.0)[None, :]


@triton.jit
def forward(
    x, weight, bias, y, length, channels, x_batch, x_channel, x_token, y_batch, y_channel, y_token,
    SILU: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sequence, _, token, channel = _tile(length, channels, TOKENS, CHANNELS)
    x, weight = x + sequence * x_batch, weight + channel * WIDTH
    out = tl.zeros((TOKENS, CHANNELS), tl.float32) + _load_parameter(bias + channel, channel, channels)
    # Each tap loads the tile again, shifted by one token; all but the first load hit the L1 cache.
    for k in tl.static_range(WIDTH):
        tap = _load_parameter(weight + k, channel, channels)
        out += tap * _load(x, token - (WIDTH - 1) + k, channel, length, channels, x_channel, x_token)
    if SILU:
        out = out * tl.sigmoid(out)
    pointer = y + sequence * y_batch + token[:, None] * y_token + channel[None, :] * y_channel
    tl.store(pointer, out, (token < length)[:, None] & (channel < channels)[None, :])


@triton.jit
def backward(
    grad, x, weight, bias, grad_x, partial, length, channels, grad_batch, grad_channel, grad_token,
    x_batch, x_channel, x_token, grad_x_batch, grad_x_channel, grad_x_token,
    SILU: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of x, and of each tile of tokens the partial gradients of weight and bias, (K + 1, E)."""
    sequence, tile, token, channel = _tile(length, channels, TOKENS, CHANNELS)
    x, grad, weight = x + sequence * x_batch, grad + sequence * grad_batch, weight + channel * WIDTH
    d_input = tl.zeros((TOKENS, CHANNELS), tl.float32)
    # Token t contributes to the outputs t … t + K - 1. The loop ends at j = 0, so that `d_out` is left with the
    # gradient at the tile's own tokens, which the gradients of weight and bias need below.
    for j in tl.static_range(WIDTH - 1, -1, -1):
        d_out = _load(grad, token + j, channel, length, channels, grad_channel, grad_token)
        if SILU:
            # The derivative of SiLU needs the output before it. Recomputing that costs K multiply-adds; saving it in
            # the forward pass would cost a tensor of the size of x.
            out = tl.zeros((TOKENS, CHANNELS), tl.float32) + _load_parameter(bias + channel, channel, channels)
            for k in tl.static_range(WIDTH):
                tap = _load_parameter(weight + k, channel, channels)
                out += tap * _load(x, token - (WIDTH - 1) + j + k, channel, length, channels, x_channel, x_token)
            sigmoid = tl.sigmoid(out)
            d_out = d_out * sigmoid * (1.0 + out * (1.0 - sigmoid))
        d_input += _load_parameter(weight + WIDTH - 1 - j, channel, channels) * d_out
    # One row per tile instead of atomic additions, whose order would change from run to run.
    partial += (sequence * tl.cdiv(length, TOKENS) + tile) * (WIDTH + 1) * channels + channel
    for k in tl.static_range(WIDTH):
        inputs = _load(x, token - (WIDTH - 1) + k, channel, length, channels, x_channel, x_token)
        tl.store(partial + k * channels, tl.sum(d_out * inputs, 0), channel < channels)
    tl.store(partial + WIDTH * channels, tl.sum(d_out, 0), channel < channels)
    pointer = grad_x + sequence * grad_x_batch + token[:, None] * grad_x_token + channel[None, :] * grad_x_channel
    tl.store(pointer, d_input, (token < length)[:, None] & (channel < channels)[None, :])
