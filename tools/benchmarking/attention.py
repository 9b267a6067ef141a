"""Benchmark cases of band-pass attention and retention, with torch's causal attention as the yardstick.

Shapes: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from benchmarking.fla import attention_by_fla, retention_by_fla
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Operator, Shape, forward, forward_backward
from benchmarking.scans import frequencies, normal
from torch import Tensor

from mmdefocus.ops import bandpass_attention, retention
from mmdefocus.ops.bandpass.attention import attention_in_blocks
from mmdefocus.ops.bandpass.retention import retention_by_form

HEAD = 64
# Largest number of query-key pairs for the reference, which stores about 1.6 kB per pair.
MOST_PAIRS = 2**21


def heads(shape: Shape) -> int:
    """Return the number of heads: E is the inner width of Mamba, twice the width of the tokens."""
    return max(1, shape.channels // (2 * HEAD))


def make_attention(value_dims: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Make random arguments with half-lives from 4 to 4096 tokens, as a network is initialised."""
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


def blocks(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor) -> Tensor:
    """Compute band-pass attention in plain PyTorch."""
    query, key, value = (x.to(decay.dtype).contiguous() for x in (q, k, v))
    return attention_in_blocks(query * HEAD**-0.5, key, value, decay, freq).to(q.dtype)


def chunkwise(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor) -> Tensor:
    """Compute retention in plain PyTorch."""
    query, key, value = (x.to(decay.dtype).contiguous() for x in (q, k, v))
    state = query.new_zeros(*q.shape[:2], v.shape[-1], HEAD)
    return retention_by_form(query * HEAD**-0.5, key, value, decay, freq, state, 'chunkwise')[0].to(q.dtype)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def sdpa_seconds(machine: Machine, shape: Shape, dtype: torch.dtype) -> dict[str, float]:
    tensors = make_attention(HEAD, shape, dtype, machine.device)
    tensors = {name: tensors[name] for name in ('q', 'k', 'v')}
    grad_output = torch.randn_like(tensors['v'])
    runs = (
        partial(forward, causal_attention, tensors),
        partial(forward_backward, causal_attention, tensors, grad_output),
    )
    return {passes: machine.best_seconds(run) for passes, run in zip(PASSES, runs, strict=True)}


def fewer_queries(shape: Shape) -> Shape:
    """Reduce tokens, then heads, then images until the query-key pairs fit into ``MOST_PAIRS``."""
    length = min(shape.length, math.isqrt(MOST_PAIRS))
    count = max(1, min(heads(shape), MOST_PAIRS // length**2))
    return Shape(max(1, min(shape.batch, MOST_PAIRS // (length**2 * count))), length, 2 * HEAD * count)


def pairs(shape: Shape) -> int:
    """Count the query-key pairs of all heads under a causal mask."""
    return shape.batch * heads(shape) * shape.length * (shape.length + 1) // 2


BANDPASS_ATTENTION = Operator(
    name='bandpass_attention',
    description=f'E / {2 * HEAD} heads of {HEAD} channels, causal. `SDPA` is '
    '`scaled_dot_product_attention(is_causal=True)` on the same q, k and v, without a band-pass filter; `fla` is '
    '`parallel_wall_attn` of flash-linear-attention.',
    make=partial(make_attention, HEAD),
    like='v',
    implementations={
        'triton': partial(bandpass_attention, backend='triton'),
        'cpp': partial(bandpass_attention, backend='cpp'),
        'blocks': blocks,
        'reference': partial(bandpass_attention, backend='reference'),
        'fla': attention_by_fla,
    },
    rounding=('triton', 'fla'),
    foreign=('fla',),
    comparable=fewer_queries,
    exponentials=pairs,
    matrix_flops=lambda shape: pairs(shape) * 4 * HEAD,
    yardstick=('SDPA', sdpa_seconds),
    proxy='blocks',
)
RETENTION = Operator(
    name='retention',
    description=f'E / {2 * HEAD} heads of {HEAD} channels, values of {2 * HEAD}. `SDPA` is '
    f'`scaled_dot_product_attention(is_causal=True)` with values of {HEAD} channels, as in a ViT of this width; '
    '`fla` is `chunk_gla` of flash-linear-attention.',
    make=partial(make_attention, 2 * HEAD),
    like='v',
    implementations={
        'cpp': partial(retention, backend='cpp'),
        'chunkwise': chunkwise,
        'reference': partial(retention, backend='reference'),
        'fla': retention_by_fla,
    },
    rounding=('fla',),
    foreign=('fla',),
    comparable=fewer_queries,
    exponentials=lambda shape: 0,
    # Each token is written to the state and read from it: two products of (HEAD) x (2 HEAD) per token and head.
    matrix_flops=lambda shape: shape.batch * heads(shape) * shape.length * 8 * HEAD**2,
    yardstick=('SDPA', sdpa_seconds),
    proxy='chunkwise',
)
