"""Rotary position embedding of attention and retention: the centre of the band-pass, applied to queries and keys.

With the query rotated by θ t and the key by θ s, the real part of q conj(k) has the factor exp(i θ (t - s)) of the
logit. Both are rotated once, and everything after is real. The phases θ t are computed in float64, reduced to a single
turn and then rounded: in float32, a phase of 8192 radians has an error of 5e-4.

Shapes: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs.
"""

import math

import torch
from torch import Tensor

from mmdefocus.ops.flops import register_formula


def apply_rotary(x: Tensor, freq: Tensor | None, first_position: int = 0) -> Tensor:
    """Rotate the channel pairs (2j, 2j + 1) of every token by its position times the frequency.

    Args:
        x: (…, H, L, d), float32 or float64.
        freq: θ in radians per token, (H, P); None returns ``x``.
        first_position: Position of the first token; may be negative.

    Returns:
        (…, H, L, d).
    """
    return x if freq is None else _rotate(x, freq, first_position)


# A product of complex numbers takes one pass over x, several times fewer than the same in real numbers. torch.compile
# generates no code for complex numbers, so it is an operator.
@torch.library.custom_op('mmdefocus::bandpass_rotary', mutates_args=())
def _rotate(x: Tensor, freq: Tensor, first_position: int) -> Tensor:
    turns = _positions(x, first_position) * (freq.contiguous().to(torch.float64) / math.tau)[:, None]  # (H, L, P)
    # Within half a turn, float32 is precise enough, and its sines are ten times as fast as those of float64.
    phases = ((turns - turns.round()) * math.tau).to(x.dtype)
    factors = torch.complex(phases.cos(), phases.sin())
    pairs = torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * factors).flatten(-2)


@_rotate.register_fake
def _(x, freq, first_position):
    return x.new_empty(x.shape)


def _positions(x: Tensor, first: int) -> Tensor:
    return torch.arange(first, first + x.shape[-2], device=x.device, dtype=torch.float64)[:, None]  # (L, 1)


def _save(ctx, inputs, output):
    x, freq, ctx.first_position = inputs
    ctx.save_for_backward(x, freq)


def _backward(ctx, grad):
    x, freq = ctx.saved_tensors
    grad_x = _rotate(grad, -freq, ctx.first_position)
    (even, odd), (grad_even, grad_odd) = (tensor.unflatten(-1, (-1, 2)).unbind(-1) for tensor in (x, grad_x))
    by_phase = (even * grad_odd - odd * grad_even).flatten(0, -4).sum(0)  # (H, L, P)
    return grad_x, (_positions(x, ctx.first_position) * by_phase).sum(1).to(freq.dtype), None


_rotate.register_autograd(_backward, setup_context=_save)
register_formula('bandpass_rotary', lambda *_, **__: 0)  # element-wise
