"""Depthwise causal convolution over tokens as Triton kernels, with its SiLU.

A program has a tile of tokens and channels of one sequence. Backward it computes the convolution again for its tokens
and the few after them, so that nothing but the inputs is saved.

Legend: B batch, E channels, L time, K kernel width; `d_x` is the gradient of x.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmdefocus.ops.backends import refuse_second_derivatives
from mmdefocus.ops.flops import count_operator

TOKENS, CHANNELS = 32, 64


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
def _forward(
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
def _backward(
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


def _launch(x: Tensor, weight: Tensor, silu: bool) -> tuple[tuple[int], dict[str, int | bool]]:
    """Grid and sizes of the kernels."""
    batch, channels, length = x.shape
    sizes: dict[str, int | bool] = dict(length=length, channels=channels, SILU=silu, WIDTH=weight.shape[1])
    sizes |= dict(TOKENS=TOKENS, CHANNELS=CHANNELS)
    return (batch * triton.cdiv(length, TOKENS) * triton.cdiv(channels, CHANNELS),), sizes


def _strides(**tensors: Tensor) -> dict[str, int]:
    axes = ('batch', 'channel', 'token')
    return {f'{name}_{axis}': x.stride(i) for name, x in tensors.items() for i, axis in enumerate(axes)}


@torch.library.custom_op('mmdefocus::causal_conv1d_triton', mutates_args=())
def _convolve(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    y = torch.empty_like(x)
    grid, sizes = _launch(x, weight, silu)
    with torch.cuda.device_of(x):
        _forward[grid](x, weight.contiguous(), bias.contiguous(), y, **_strides(x=x, y=y), **sizes)
    return y


@torch.library.custom_op('mmdefocus::causal_conv1d_triton_backward', mutates_args=())
def _convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    d_x = torch.empty_like(x)
    grid, sizes = _launch(x, weight, silu)
    channels, width = weight.shape
    d_parameters = weight.new_empty(x.shape[0] * triton.cdiv(x.shape[2], TOKENS), width + 1, channels)
    strides = _strides(grad=grad, x=x, d_x=d_x)
    with torch.cuda.device_of(x):
        _backward[grid](
            grad, x, weight.contiguous(), bias.contiguous(), d_x, d_parameters, num_warps=8, **strides, **sizes
        )
    sums = d_parameters.sum(0)
    return d_x, sums[:width].T.contiguous(), sums[width].clone()


@_convolve.register_fake
def _(x, weight, bias, silu):
    return torch.empty_like(x)


@_convolve_backward.register_fake
def _(grad, x, weight, bias, silu):
    return torch.empty_like(x), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(ctx, inputs, output):
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    return *_convolve_backward(grad, *ctx.saved_tensors, ctx.silu), None


_convolve.register_autograd(_differentiate, setup_context=_save)
refuse_second_derivatives('causal_conv1d_triton')
count_operator('causal_conv1d_triton')
count_operator('causal_conv1d_triton_backward')


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """Compute :func:`mmdefocus.ops.causal_conv1d`.

    Args:
        x: (B, E, L), float16, bfloat16 or float32, with any strides; the result has its memory order.
        weight: (E, K), float32.
        bias: (E), float32, or None.
        silu: whether ``y sigmoid(y)`` follows.
    """
    return _convolve(x, weight, weight.new_zeros(weight.shape[0]) if bias is None else bias, silu)
