"""Host functions of the causal convolution in Triton: they allocate and launch.

Shapes: B batch, E channels, L time, K kernel width.
"""

import torch
from torch import Tensor

from mmdefocus.ops.kernel_limits import ceil_div

from . import triton_kernels as kernels

TOKENS, CHANNELS = 32, 64  # of a tile


def forward(x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> Tensor:
    """Launch the forward kernel; arguments as for the operator ``mmdefocus::causal_conv1d_triton``."""
    y = torch.empty_like(x)
    grid, sizes = _launch_sizes(x, weight, silu)
    with torch.cuda.device_of(x):
        kernels.forward[grid](x, weight.contiguous(), bias.contiguous(), y, **_strides(x=x, y=y), **sizes)
    return y


def backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, silu: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the backward kernel; return the gradients of x, weight and bias."""
    grad_x = torch.empty_like(x)
    grid, sizes = _launch_sizes(x, weight, silu)
    channels, width = weight.shape
    # Partial sums of each tile of tokens. Adding them up afterwards is deterministic; atomics would not be.
    partial = weight.new_empty(x.shape[0] * ceil_div(x.shape[2], TOKENS), width + 1, channels)
    strides = _strides(grad=grad, x=x, grad_x=grad_x)
    with torch.cuda.device_of(x):
        kernels.backward[grid](
            grad, x, weight.contiguous(), bias.contiguous(), grad_x, partial, num_warps=8, **strides, **sizes
        )
    sums = partial.sum(0)
    return grad_x, sums[:width].T.contiguous(), sums[width].clone()


def _launch_sizes(x: Tensor, weight: Tensor, silu: bool) -> tuple[tuple[int], dict[str, int | bool]]:
    """Return the grid, and the sizes that both kernels take."""
    batch, channels, length = x.shape
    sizes: dict[str, int | bool] = dict(length=length, channels=channels, SILU=silu, WIDTH=weight.shape[1])
    sizes |= dict(TOKENS=TOKENS, CHANNELS=CHANNELS)
    return (batch * ceil_div(length, TOKENS) * ceil_div(channels, CHANNELS),), sizes


def _strides(**tensors: Tensor) -> dict[str, int]:
    axes = ('batch', 'channel', 'token')
    return {f'{name}_{axis}': x.stride(i) for name, x in tensors.items() for i, axis in enumerate(axes)}
