"""Attention and retention with a band-pass as the benchmark runs them, beside torch's causal attention.

Legend: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Operator, Shape, forward, forward_backward
from benchmarking.scans import frequencies, normal
from torch import Tensor

from mmdefocus.ops import bandpass_attention, retention

HEAD = 64
# The reference keeps about 1.6 kB for every pair of a query and a key.
MOST_PAIRS = 2**21


def heads(shape: Shape) -> int:
    """A mixer of E channels belongs to tokens of E / 2."""
    return max(1, shape.channels // (2 * HEAD))


def make_attention(value_dims: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Half-lives from 4 to 4096 tokens, as in a new network."""
    queries = (shape.batch, heads(shape), shape.length, HEAD)
    activation = partial(normal, dtype=dtype, device=device)
    half_lives = torch.linspace(math.log(4), math.log(4096), heads(shape), device=device).exp()
    tensors = {
        'q': activation(*queries),
        'k': activation(*queries),
        'v': activation(*queries[:3], value_dims),
        'decay': (math.log(2) / half_lives)[:, None].repeat(1, HEAD // 2),
        'freq': frequencies(heads(shape), HEAD // 2, device=device),
    }
    return {name: x.requires_grad_() for name, x in tensors.items()}


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def sdpa_seconds(machine: Machine, shape: Shape, dtype: torch.dtype) -> dict[str, float]:
    tensors = make_attention(HEAD, shape, dtype, machine.device)
    tensors = {name: tensors[name] for name in ('q', 'k', 'v')}
    incoming = torch.randn_like(tensors['v'])
    runs = (
        partial(forward, causal_attention, tensors),
        partial(forward_backward, causal_attention, tensors, incoming),
    )
    return {passes: machine.best_seconds(run) for passes, run in zip(PASSES, runs, strict=True)}


def fewer_queries(shape: Shape) -> Shape:
    """One image, so few heads that its pairs fit, and then so few tokens."""
    length = min(shape.length, math.isqrt(MOST_PAIRS))
    count = max(1, min(heads(shape), MOST_PAIRS // length**2))
    return Shape(max(1, min(shape.batch, MOST_PAIRS // (length**2 * count))), length, 2 * HEAD * count)


def pairs(shape: Shape) -> int:
    """Pairs of a query and a key that it sees, of all heads."""
    return shape.batch * heads(shape) * shape.length * (shape.length + 1) // 2


BANDPASS_ATTENTION = Operator(
    name='bandpass_attention',
    meaning=f'E / {2 * HEAD} heads of {HEAD} channels, causal. `SDPA` is '
    '`scaled_dot_product_attention(is_causal=True)` on the same q, k and v, without a band-pass.',
    make=partial(make_attention, HEAD),
    like='v',
    implementations={
        'triton': partial(bandpass_attention, backend='triton'),
        'blocks': bandpass_attention,
        'reference': partial(bandpass_attention, backend='reference'),
    },
    rounding=('triton',),
    comparable=fewer_queries,
    exponentials=pairs,
    matrix_flops=lambda shape: pairs(shape) * 4 * HEAD,
    yardstick=('SDPA', sdpa_seconds),
    stand_in='blocks',
)
RETENTION = Operator(
    name='retention',
    meaning=f'E / {2 * HEAD} heads of {HEAD} channels and {2 * HEAD} of the values. `SDPA` is '
    f'`scaled_dot_product_attention(is_causal=True)` with {HEAD} channels of the values, that of a ViT of this width.',
    make=partial(make_attention, 2 * HEAD),
    like='v',
    implementations={
        'chunkwise': retention,
        'reference': partial(retention, backend='reference'),
    },
    comparable=fewer_queries,
    exponentials=lambda shape: 0,
    # Every token enters a state and is read from one.
    matrix_flops=lambda shape: shape.batch * heads(shape) * shape.length * 8 * HEAD**2,
    yardstick=('SDPA', sdpa_seconds),
    stand_in='chunkwise',
)
