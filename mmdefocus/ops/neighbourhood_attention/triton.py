"""Host functions of neighbourhood attention in Triton: they allocate and launch.

Shapes: B batch, h heads, H and W rows and columns of the map, d channels of a head, K side of the neighbourhood.
"""

import torch
from torch import Tensor

from mmdefocus.ops.kernel_limits import ceil_div

from . import triton_kernels as kernels

SIDE = 8  # most rows and columns of a tile
COLUMN_CHANNELS = 256  # most channels of a column of pixels of a tile: more would not fit into registers


def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, scale: float) -> tuple[Tensor, Tensor]:
    """Launch the forward kernel; see ``mmdefocus::neighbourhood_attention_triton`` for arguments and results."""
    q, k, v, bias = (x.contiguous() for x in (q, k, v, bias))
    y, lse = torch.empty_like(q), bias.new_empty(q.shape[:4])
    programs, sizes = _launch_sizes(q, kernel_size)
    if programs:
        with torch.cuda.device_of(q):
            kernels.forward[programs,](q, k, v, bias, y, lse, scale, **sizes)
    return y, lse


def backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    y: Tensor,
    lse: Tensor,
    kernel_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Launch the backward kernels; return the gradients of q, k, v and bias."""
    grad_output, q, k, v, bias, lse = (x.contiguous() for x in (grad_output, q, k, v, bias, lse))
    delta = (grad_output.float() * y.float()).sum(-1)  # (B, h, H, W)
    grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
    programs, sizes = _launch_sizes(q, kernel_size)
    # Of every tile, zero at offsets that it does not have; torch.sum adds them up in a fixed order.
    grad_bias = bias.new_zeros(q.shape[0], bias.shape[0], programs // max(1, q.shape[0] * q.shape[1]), *bias.shape[1:])
    if programs:
        with torch.cuda.device_of(q):
            arguments = (grad_output, delta, q, k, v, bias, lse)
            kernels.backward_queries[programs,](*arguments, grad_q, scale, **sizes)
            kernels.backward_keys[programs,](*arguments, grad_k, grad_v, grad_bias, scale, **sizes)
    return grad_q, grad_k, grad_v, grad_bias.sum((0, 2))


def _launch_sizes(q: Tensor, kernel_size: int) -> tuple[int, dict[str, int]]:
    """Return the number of programs, and the sizes that all kernels take."""
    batch, heads, height, width, channels = q.shape
    padded = max(16, 1 << (channels - 1).bit_length())
    rows = min(SIDE, max(1, COLUMN_CHANNELS // padded))
    programs = batch * heads * ceil_div(height, rows) * ceil_div(width, SIDE)
    sizes = dict(heads=heads, height=height, width=width, K=kernel_size, D=channels)
    return programs, sizes | dict(ROWS=rows, COLUMNS=SIDE, CHANNELS=padded)
