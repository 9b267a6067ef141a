"""Benchmark case of neighbourhood attention, with torch's attention under a dense mask as the yardstick.

Shapes: B batch, h heads, H and W rows and columns of the map, N = H W pixels, d channels of a head, K side of the
neighbourhood.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Operator, Shape, forward, forward_backward
from benchmarking.scans import normal
from torch import Tensor

from mmdefocus.ops import neighbourhood_attention

HEAD = 32
KERNEL = 7
# Largest number of pairs of pixels, of all heads, for dense attention, which stores several tensors of this size.
MOST_PAIRS = 2**24


def heads(shape: Shape) -> int:
    """Return the number of heads: E is the inner width of Mamba, twice the width of the tokens."""
    return max(1, shape.channels // (2 * HEAD))


def map_size(shape: Shape) -> tuple[int, int]:
    """Return rows and columns of the largest map of about equal sides with at most L pixels, or 7 x 7."""
    height = max(KERNEL, math.isqrt(shape.length))
    return height, max(KERNEL, shape.length // height)


def make(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    size = (shape.batch, heads(shape), *map_size(shape), HEAD)
    tensors = {name: normal(*size, dtype=dtype, device=device) for name in 'qkv'}
    tensors['bias'] = normal(heads(shape), *[2 * KERNEL - 1] * 2, dtype=torch.float32, device=device)
    return {name: x.requires_grad_() for name, x in tensors.items()}


def dense_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Compute torch's attention with a mask of (h, N, N) numbers, the bias inside of the windows and -inf outside."""
    (rows, in_rows), (columns, in_columns) = (axis(length, q.device) for length in q.shape[2:4])
    offsets = bias[:, rows[:, None, :, None], columns[None, :, None, :]]  # (h, H, W, H, W)
    inside = in_rows[:, None, :, None] & in_columns[None, :, None, :]  # (H, W, H, W)
    mask = offsets.masked_fill(~inside, -torch.inf).flatten(3).flatten(1, 2).to(q.dtype)  # (h, N, N)
    return F.scaled_dot_product_attention(*(x.flatten(2, 3) for x in (q, k, v)), attn_mask=mask).view_as(q)


def axis(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the index into the bias and whether the key is in the window, for each query and key of an axis."""
    query, key = torch.arange(length, device=device)[:, None], torch.arange(length, device=device)
    start = (query - KERNEL // 2).clamp(0, length - KERNEL)
    return (key - query + KERNEL - 1).clamp(0, 2 * KERNEL - 2), (key >= start) & (key < start + KERNEL)


def fewer_heads(shape: Shape) -> Shape:
    """Reduce heads, then images, then pixels until the pairs fit into ``MOST_PAIRS``."""
    length = min(shape.length, math.isqrt(MOST_PAIRS))
    fitting = max(1, MOST_PAIRS // length**2)
    count = min(heads(shape), fitting)
    return Shape(min(shape.batch, max(1, fitting // count)), length, 2 * HEAD * count)


def sdpa_seconds(machine: Machine, shape: Shape, dtype: torch.dtype) -> dict[str, float]:
    """Time dense attention on as many heads and images as fit, and extrapolate to all, and to all pairs of pixels."""
    part = fewer_heads(shape)
    tensors = make(part, dtype, machine.device)
    grad_output = torch.randn_like(tensors['v'])
    runs = (
        partial(forward, dense_attention, tensors),
        partial(forward_backward, dense_attention, tensors, grad_output),
    )
    factor = dense_pairs(shape) / dense_pairs(part)
    return {passes: machine.best_seconds(run) * factor for passes, run in zip(PASSES, runs, strict=True)}


def dense_pairs(shape: Shape) -> int:
    return shape.batch * heads(shape) * math.prod(map_size(shape)) ** 2


def pairs(shape: Shape) -> int:
    """Count the query-key pairs of all heads: K² keys per query."""
    return shape.batch * heads(shape) * math.prod(map_size(shape)) * KERNEL**2


NEIGHBOURHOOD_ATTENTION = Operator(
    name='neighbourhood_attention',
    description=f'E / {2 * HEAD} heads of {HEAD} channels, K = {KERNEL}, on the largest map of at most L pixels, at '
    f'least {KERNEL} x {KERNEL}. `SDPA` is `scaled_dot_product_attention` with a mask of (heads, pixels, pixels) '
    f'numbers made of the same bias, for at most {MOST_PAIRS:,} pairs of pixels and extrapolated beyond.',
    make=make,
    like='v',
    implementations={
        'triton': partial(neighbourhood_attention, kernel_size=KERNEL, backend='triton'),
        'tiles': partial(neighbourhood_attention, kernel_size=KERNEL),
        'reference': partial(neighbourhood_attention, kernel_size=KERNEL, backend='reference'),
    },
    rounding=('triton',),
    comparable=fewer_heads,
    exponentials=pairs,
    matrix_flops=lambda shape: pairs(shape) * 4 * HEAD,
    yardstick=('SDPA', sdpa_seconds),
    proxy='tiles',
)
