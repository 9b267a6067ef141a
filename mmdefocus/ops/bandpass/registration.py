"""Registration of attention and retention with torch: fake kernels, autograd and FLOP formulas.

The operators take queries and keys that are rotated already (:mod:`mmdefocus.ops.bandpass.rotary`), and a decay per
channel instead of per pair: ``mmdefocus::bandpass_attention`` in PyTorch, with or without softmax, and
``mmdefocus::bandpass_attention_triton``.

Shapes: B batch, H heads, G blocks, C tokens of a block, L tokens, d channels of a head, V channels of a value.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from mmdefocus.ops.backends import disallow_double_backward
from mmdefocus.ops.flops import Shape, register_formula
from mmdefocus.ops.kernel_limits import ceil_div
from mmdefocus.ops.validation import check_shape, check_types, compute_dtype

from . import blocks
from .arguments import TRITON_BLOCK, check_activations

TRITON_OP = 'bandpass_attention_triton'


@torch.library.custom_op('mmdefocus::bandpass_attention', mutates_args=())
def attend(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, causal: bool, softmax: bool
) -> tuple[Tensor, Tensor]:
    """Attention with a decay per channel.

    Args:
        q, k: (B, H, L, d), float32 or float64, rotated and contiguous; ``q`` includes the scale.
        v: (B, H, L, V).
        self_logits: Logit of every token with itself, (B, H, L, 1). It does not depend on the rotation; computed from
            rotated q and k, its part of the gradient of the frequencies would cancel only up to rounding.
        decay: λ ≥ 0 per token, (H, d).
        causal: Whether a query attends only to itself and earlier keys.
        softmax: Whether the weights are the softmax of the logits, or the logits themselves (linear attention).

    Returns:
        (B, H, L, V); for the backward pass, the intra-block logits (B, H, G, C, C).
    """
    with torch.autocast(q.device.type, enabled=False):
        return blocks.attend(q, k, v, self_logits, decay, causal, softmax)


@torch.library.custom_op('mmdefocus::bandpass_attention_backward', mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, out: Tensor,
    intra_block: Tensor, causal: bool, softmax: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    with torch.autocast(q.device.type, enabled=False):
        return blocks.attend_backward(grad, q, k, v, decay, out, intra_block, causal, softmax)


@torch.library.custom_op('mmdefocus::bandpass_attention_triton', mutates_args=())
def attend_triton(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax attention with a decay per channel, by Triton.

    Args:
        q, k: (B, H, L, d), float16, bfloat16 or float32, rotated; ``q`` includes the scale.
        v: (B, H, L, V), of the same type.
        self_logits: Logit of every token with itself, (B, H, L, 1), float32; see ``mmdefocus::bandpass_attention``.
        decay: λ ≥ 0 per token, (H, d), float32.
        causal: Whether a query attends only to itself and earlier keys.

    Returns:
        (B, H, L, V) of the type of ``q``; for the backward pass, the logarithm of the sum of exponentials of every
        query (B, H, L), and the intra-block logits (B, H, G, C, C), in float32.
    """
    _check_triton(q, k, v, self_logits, decay)
    from . import triton

    return triton.forward(q, k, v, self_logits, decay, causal)


@torch.library.custom_op('mmdefocus::bandpass_attention_triton_backward', mutates_args=())
def _triton_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, y: Tensor, lse: Tensor,
    intra_block: Tensor, causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _check_triton(q, k, v, self_logits, decay)
    batch, heads, length, _ = q.shape
    check_types(TRITON_OP, {'grad': grad, 'y': y}, q.dtype)
    check_types(TRITON_OP, {'lse': lse, 'intra_block': intra_block}, torch.float32)
    for name, tensor in (('grad', grad), ('y', y)):
        check_shape(TRITON_OP, name, tensor, v.shape, '(batch, heads, length, value channels)')
    check_shape(TRITON_OP, 'lse', lse, (batch, heads, length), '(batch, heads, length)')
    squares = (batch, heads, ceil_div(length, TRITON_BLOCK), TRITON_BLOCK, TRITON_BLOCK)
    check_shape(TRITON_OP, 'intra_block', intra_block, squares, '(batch, heads, blocks, tokens, tokens)')
    from . import triton

    return triton.backward(grad, q, k, v, decay, y, lse, intra_block, causal)


def _check_triton(q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor) -> None:
    """Check the arguments for direct callers of the operators, because the kernels trust them."""
    activations = {'q': q, 'k': k, 'v': v}
    others = {'self_logits': self_logits, 'decay': decay}
    compute_dtype(TRITON_OP, activations | others)
    check_types(TRITON_OP, activations, q.dtype)
    check_types(TRITON_OP, others, torch.float32)
    check_activations(TRITON_OP, q, k, v)
    check_shape(TRITON_OP, 'self_logits', self_logits, (*q.shape[:3], 1), '(batch, heads, length, 1)')
    check_shape(TRITON_OP, 'decay', decay, (q.shape[1], q.shape[3]), '(heads, channels)')


@attend.register_fake
def _(q, k, v, self_logits, decay, causal, softmax):
    return torch.empty_like(v), _empty_blocks(q, blocks.block_size(q.shape[2]))


@_attend_backward.register_fake
def _(grad, q, k, v, self_logits, decay, out, intra_block, causal, softmax):
    return tuple(torch.empty_like(x) for x in (q, k, v, self_logits, decay))


@attend_triton.register_fake
def _(q, k, v, self_logits, decay, causal):
    return v.new_empty(v.shape), decay.new_empty(q.shape[:3]), _empty_blocks(q.float(), TRITON_BLOCK)


@_triton_backward.register_fake
def _(grad, q, k, v, self_logits, decay, y, lse, intra_block, causal):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, self_logits, decay))


def _empty_blocks(q: Tensor, size: int) -> Tensor:
    return q.new_empty(*q.shape[:2], ceil_div(q.shape[2], size), size, size)


def _save(ctx, inputs, output):
    tensors, ctx.options = inputs[:5], inputs[5:]
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate_with(backward):
    def differentiate(ctx, grad, *_):
        return *backward(grad, *ctx.saved_tensors, *ctx.options), *(None for _ in ctx.options)

    return differentiate


attend.register_autograd(_differentiate_with(_attend_backward), setup_context=_save)
attend_triton.register_autograd(_differentiate_with(_triton_backward), setup_context=_save)


def bandpass_attention_flops(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of attention as torch counts its own, causal or not: 2 B H L² (d + V).

    Args:
        q, k: (B, H, L, d).
        v: (B, H, L, V).
    """
    return sdpa_flop_count(q, k, v)


def bandpass_attention_backward_flops(grad: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    """Return the FLOPs of the gradients as torch counts those of its own attention."""
    return sdpa_backward_flop_count(grad, q, k, v)


for _op in ('bandpass_attention', TRITON_OP):
    disallow_double_backward(_op)
    register_formula(_op, bandpass_attention_flops)
    register_formula(f'{_op}_backward', bandpass_attention_backward_flops)
