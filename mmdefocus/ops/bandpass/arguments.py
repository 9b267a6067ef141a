"""Checks of the arguments that attention and retention share."""

import torch
from torch import Tensor

from mmdefocus.ops.validation import check_rank, check_shape

TRITON_BLOCK = 64  # tokens of a block of queries or keys


def check_arguments(op: str, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, freq: Tensor | None) -> None:
    """Raise ValueError for mismatched shapes and, where reading it costs nothing, for a negative decay."""
    check_rank(op, 'q', q, '(batch, heads, length, channels)')
    heads, channels = q.shape[1], q.shape[3]
    if channels == 0 or channels % 2:
        raise ValueError(f'{op}: expected an even number of channels per head (they rotate in pairs), got {channels}')
    check_activations(op, q, k, v)
    for name, parameter in (('decay', decay), ('freq', freq)):
        check_shape(op, name, parameter, (heads, channels // 2), '(heads, channels / 2)')
    # Reading a value would synchronize with a GPU and break a graph.
    costs_nothing = q.device.type == 'cpu' and not torch.compiler.is_compiling()
    if decay is not None and costs_nothing and (decay < 0).any():
        raise ValueError(f'{op}: expected decay >= 0, got {decay.min().item():.3g}; it is λ, not -λ or exp(-λ)')


def check_activations(op: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError for mismatched shapes, and for sequences without heads or tokens."""
    check_rank(op, 'q', q, '(batch, heads, length, channels)')
    check_rank(op, 'v', v, '(batch, heads, length, value channels)')
    batch, heads, length, channels = q.shape
    if heads == 0:
        raise ValueError(f'{op}: expected at least one head, got q of shape {tuple(q.shape)}')
    if length == 0:
        raise ValueError(f'{op}: expected a sequence of at least one token, got q of shape {tuple(q.shape)}')
    check_shape(op, 'k', k, (batch, heads, length, channels), '(batch, heads, length, channels)')
    check_shape(op, 'v', v, (batch, heads, length, v.shape[-1]), '(batch, heads, length, value channels)')
