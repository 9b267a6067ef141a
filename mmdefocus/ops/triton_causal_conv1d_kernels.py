"""Triton kernels of the causal convolution; :mod:`mmdefocus.ops.triton_causal_conv1d` launches them.

A program has a tile of tokens and channels of one sequence. Backward it computes the convolution again for its tokens
and the few after them, so that nothing but the inputs is saved.

Legend: B batch, E channels, L time, K kernel width; `d_x` is the gradient of x.
"""

import triton
import triton.language as tl


@triton.jit
def _place(length, channels, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """Sequence, tile of tokens, tokens and channels of a program, all in 64 bits: they are factors of offsets."""
    tiles, blocks = tl.cdiv(length, TOKENS), tl.cdiv(channels, CHANNELS)
    program = tl.program_id(0).to(tl.int64)
    tile = program // blocks % tiles
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    return program // blocks // tiles, tile, tile * TOKENS + tl.arange(0, TOKENS), channel


@triton.jit
def _load(x, token, channel, length, channels, x_channel, x_token):
    """A tile in float32; 0 where there are no tokens or channels."""
    inside = ((token >= 0) & (token < length))[:, None] & (channel < channels)[None, :]
    return tl.load(x + token[:, None] * x_token + channel[None, :] * x_channel, inside, 0.0).to(tl.float32)


@triton.jit
def _load_parameter(x, channel, channels):
    return tl.load(x, channel < channels, 0.0)[None, :]


@triton.jit
def forward(
    x, weight, bias, y, length, channels, x_batch, x_channel, x_token, y_batch, y_channel, y_token,
    SILU: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    sequence, _, token, channel = _place(length, channels, TOKENS, CHANNELS)
    x, weight = x + sequence * x_batch, weight + channel * WIDTH
    out = tl.zeros((TOKENS, CHANNELS), tl.float32) + _load_parameter(bias + channel, channel, channels)
    for k in tl.static_range(WIDTH):
        tap = _load_parameter(weight + k, channel, channels)
        out += tap * _load(x, token - (WIDTH - 1) + k, channel, length, channels, x_channel, x_token)
    if SILU:
        out = out * tl.sigmoid(out)
    pointer = y + sequence * y_batch + token[:, None] * y_token + channel[None, :] * y_channel
    tl.store(pointer, out, (token < length)[:, None] & (channel < channels)[None, :])


@triton.jit
def backward(
    grad, x, weight, bias, d_x, d_parameters, length, channels, grad_batch, grad_channel, grad_token,
    x_batch, x_channel, x_token, d_x_batch, d_x_channel, d_x_token,
    SILU: tl.constexpr, WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient of x; those of weight and bias for each tile of tokens, (K + 1, E)."""
    sequence, tile, token, channel = _place(length, channels, TOKENS, CHANNELS)
    x, grad, weight = x + sequence * x_batch, grad + sequence * grad_batch, weight + channel * WIDTH
    d_input = tl.zeros((TOKENS, CHANNELS), tl.float32)
    # From the last to the first of the tokens whose convolution has something from here.
    for j in tl.static_range(WIDTH - 1, -1, -1):
        d_out = _load(grad, token + j, channel, length, channels, grad_channel, grad_token)
        if SILU:
            out = tl.zeros((TOKENS, CHANNELS), tl.float32) + _load_parameter(bias + channel, channel, channels)
            for k in tl.static_range(WIDTH):
                tap = _load_parameter(weight + k, channel, channels)
                out += tap * _load(x, token - (WIDTH - 1) + j + k, channel, length, channels, x_channel, x_token)
            sigmoid = tl.sigmoid(out)
            d_out = d_out * sigmoid * (1.0 + out * (1.0 - sigmoid))
        d_input += _load_parameter(weight + WIDTH - 1 - j, channel, channels) * d_out
    d_parameters += (sequence * tl.cdiv(length, TOKENS) + tile) * (WIDTH + 1) * channels + channel
    for k in tl.static_range(WIDTH):
        inputs = _load(x, token - (WIDTH - 1) + k, channel, length, channels, x_channel, x_token)
        tl.store(d_parameters + k * channels, tl.sum(d_out * inputs, 0), channel < channels)
    tl.store(d_parameters + WIDTH * channels, tl.sum(d_out, 0), channel < channels)
    pointer = d_x + sequence * d_x_batch + token[:, None] * d_x_token + channel[None, :] * d_x_channel
    tl.store(pointer, d_input, (token < length)[:, None] & (channel < channels)[None, :])
