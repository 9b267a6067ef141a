"""Arguments that attention and retention with a learnable band-pass share.

Legend: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

import torch
from torch import Tensor

from mmdefocus.ops.validation import check_rank, check_shape


def check_arguments(op: str, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, freq: Tensor | None) -> None:
    """Raises ValueError for shapes that do not fit and, where a look costs nothing, for a negative decay."""
    check_rank(op, 'q', q, '(batch, heads, length, channels)')
    check_rank(op, 'v', v, '(batch, heads, length, value channels)')
    batch, heads, length, channels = q.shape
    if heads == 0:
        raise ValueError(f'{op}: expected at least one head, got q of shape {tuple(q.shape)}')
    if length == 0:
        raise ValueError(f'{op}: expected a sequence of at least one token, got q of shape {tuple(q.shape)}')
    if channels == 0 or channels % 2:
        raise ValueError(f'{op}: expected an even number of channels per head (they turn in pairs), got {channels}')
    check_shape(op, 'k', k, (batch, heads, length, channels), '(batch, heads, length, channels)')
    check_shape(op, 'v', v, (batch, heads, length, v.shape[-1]), '(batch, heads, length, value channels)')
    for name, parameter in (('decay', decay), ('freq', freq)):
        check_shape(op, name, parameter, (heads, channels // 2), '(heads, channels / 2)')
    # Reading a value waits for a GPU and breaks a graph.
    costs_nothing = q.device.type == 'cpu' and not torch.compiler.is_compiling()
    if decay is not None and costs_nothing and (decay < 0).any():
        raise ValueError(f'{op}: expected decay >= 0, got {decay.min().item():.3g}; it is λ, not -λ or exp(-λ)')


def scaled(q: Tensor, scale: float | None) -> Tensor:
    """q times ``scale``, by default 1 / sqrt(d)."""
    return q * (q.shape[-1] ** -0.5 if scale is None else scale)


def or_zeros(parameter: Tensor | None, q: Tensor) -> Tensor:
    """A decay or frequency (H, P) in the type of q (B, H, L, d); zeros for None."""
    if parameter is None:
        return q.new_zeros(q.shape[1], q.shape[3] // 2)
    return parameter.to(q.dtype)
