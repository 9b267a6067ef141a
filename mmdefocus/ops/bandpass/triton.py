"""Attention with a learnable band-pass by Triton, without a logit in memory but those inside of blocks.

This is what is around :mod:`mmdefocus.ops.triton_bandpass_attention_kernels`. Logits between tokens of one block come
from :mod:`mmdefocus.ops.bandpass_tiles`. Importing this module does not need Triton.

Legend: B batch, H heads, L tokens, M tokens of a block, G blocks, d channels of a head, P = d / 2 pairs, V channels of
a value; `d_x` is the gradient of x.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.backends import refuse_second_derivatives
from mmdefocus.ops.bandpass import bandpass_factors, bandpass_factors_backward
from mmdefocus.ops.bandpass_arguments import check_arguments
from mmdefocus.ops.bandpass_tiles import block_logits, block_logits_backward
from mmdefocus.ops.kernel_limits import ceil_div
from mmdefocus.ops.validation import check_shape, check_types, compute_dtype

OP = 'bandpass_attention_triton'
BLOCK = 64


def _check(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor) -> None:
    activations, filters = {'q': q, 'k': k, 'v': v}, {'decay': decay, 'freq': freq}
    compute_dtype(OP, activations | filters)
    check_types(OP, activations, q.dtype)
    check_types(OP, filters, torch.float32)
    check_arguments(OP, q, k, v, decay, freq)


def _launch(q: Tensor, v: Tensor, causal: bool) -> tuple[tuple[int], dict[str, int | bool]]:
    """Grid and sizes of the kernels; their matrices have 16 columns at least, and a power of 2."""
    batch, heads, length, channels = q.shape
    pairs, values = channels // 2, v.shape[-1]
    sizes: dict[str, int | bool] = dict(heads=heads, length=length, CAUSAL=causal, P=pairs, V=values, M=BLOCK)
    # float32 tiles take twice the shared memory: no more than one is loaded ahead.
    sizes |= dict(num_stages=1 if q.dtype == torch.float32 else 2)
    columns = {name: max(16, 1 << (size - 1).bit_length()) for name, size in (('PAIRS', pairs), ('VALUES', values))}
    return (ceil_div(length, BLOCK) * batch * heads,), sizes | columns


def _in_blocks(x: Tensor) -> Tensor:
    """(B, H, L, d) to (B, H, G, M, d) in float32, with zeros at the end."""
    return F.pad(x.float(), (0, 0, 0, -x.shape[2] % BLOCK)).unflatten(2, (-1, BLOCK))


def _filters(q: Tensor, decay: Tensor, freq: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of the distances of all tokens, and of those inside a block to a boundary."""
    return bandpass_factors(decay, freq, q.shape[2] - 1), bandpass_factors(decay, freq, BLOCK // 2)


@torch.library.custom_op('mmdefocus::bandpass_attention_triton', mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _check(q, k, v, decay, freq)
    from mmdefocus.ops import triton_bandpass_attention_kernels as kernels  # Triton need not be there

    q, k, v = (x.contiguous() for x in (q, k, v))
    y, lse = torch.empty_like(v), q.new_empty(q.shape[:3], dtype=torch.float32)
    grid, sizes = _launch(q, v, causal)
    with torch.cuda.device_of(q), torch.autocast(q.device.type, enabled=False):
        factors, near = _filters(q, decay, freq)
        inside = block_logits(_in_blocks(q), _in_blocks(k), near, causal)
        kernels.forward[grid](q, k, v, factors, inside, y, lse, **sizes)
    return y, lse, inside


@torch.library.custom_op('mmdefocus::bandpass_attention_triton_backward', mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, y: Tensor, lse: Tensor, inside: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    _check(q, k, v, decay, freq)
    from mmdefocus.ops import triton_bandpass_attention_kernels as kernels

    check_types(OP, {'grad': grad, 'y': y}, q.dtype)
    check_types(OP, {'lse': lse, 'inside': inside}, torch.float32)
    batch, heads, length, channels = q.shape
    for name, tensor in (('grad', grad), ('y', y)):
        check_shape(OP, name, tensor, v.shape, '(batch, heads, length, value channels)')
    check_shape(OP, 'lse', lse, (batch, heads, length), '(batch, heads, length)')
    blocks = (batch, heads, ceil_div(length, BLOCK), BLOCK, BLOCK)
    check_shape(OP, 'inside', inside, blocks, '(batch, heads, blocks, tokens, tokens)')
    grad, q, k, v, lse, inside = (x.contiguous() for x in (grad, q, k, v, lse, inside))
    mean = (grad.float() * y.float()).sum(-1)
    d_q, d_k, d_v, d_inside = (torch.empty_like(x) for x in (q, k, v, inside))
    grid, sizes = _launch(q, v, causal)
    d_filter = q.new_empty(2, *blocks[:3], 2, channels // 2, dtype=torch.float32)
    with torch.cuda.device_of(q), torch.autocast(q.device.type, enabled=False):
        factors, near = _filters(q, decay, freq)
        arguments = (grad, mean, q, k, v, factors, inside, lse)
        kernels.backward_queries[grid](*arguments, d_q, d_inside, d_filter[0], **sizes)
        kernels.backward_keys[grid](*arguments, d_k, d_v, d_filter[1], **sizes)
        d_near = torch.zeros_like(near)
        more = block_logits_backward(d_inside, _in_blocks(q), _in_blocks(k), near, d_near, causal)
        for total, part in zip((d_q, d_k), more, strict=True):
            total += part.flatten(2, 3)[:, :, :length]
    d_decay, d_freq = d_filter.sum((0, 1, 3)).unbind(1)
    more_decay, more_freq = bandpass_factors_backward(d_near, near)
    return d_q, d_k, d_v, d_decay + more_decay, d_freq + more_freq


@_attend.register_fake
def _(q, k, v, decay, freq, causal):
    batch, heads, length, _ = q.shape
    inside = decay.new_empty(batch, heads, ceil_div(length, BLOCK), BLOCK, BLOCK)
    return v.new_empty(v.shape), decay.new_empty(q.shape[:3]), inside


@_attend_backward.register_fake
def _(grad, q, k, v, decay, freq, y, lse, inside, causal):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, decay, freq))


def _save(ctx, inputs, output):
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx, grad, *_):
    return *_attend_backward(grad, *ctx.saved_tensors, ctx.causal), None


_attend.register_autograd(_differentiate, setup_context=_save)
refuse_second_derivatives('bandpass_attention_triton')


def attend(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, freq: Tensor, causal: bool) -> Tensor:
    """Attention with a learnable band-pass.

    Args:
        q, k: (B, H, L, d), float16, bfloat16 or float32; the scale is in ``q``.
        v: (B, H, L, V), of the same type.
        decay, freq: (H, P), float32.
        causal: whether a query sees no later key.

    Returns:
        (B, H, L, V), of the type of ``q``.
    """
    return _attend(q, k, v, decay, freq, causal)[0]
