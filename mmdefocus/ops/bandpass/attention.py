"""Softmax attention with a learnable band-pass per channel pair: the token mixing of De-focus ViT.

Legend: B batch, H heads, L tokens, d channels of a head, P = d / 2 pairs, V channels of a value.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops import triton_bandpass_attention
from mmdefocus.ops.backends import refuse_second_derivatives, requested_backend
from mmdefocus.ops.bandpass import bandpass_factors, turn
from mmdefocus.ops.bandpass_arguments import check_arguments, or_zeros, scaled
from mmdefocus.ops.bandpass_reference import bandpass_attention_reference
from mmdefocus.ops.bandpass_tiles import block_logits, block_logits_backward, tile_logits, tile_logits_backward
from mmdefocus.ops.validation import compute_dtype


def _block_size(length: int) -> int:
    """Queries that are handled at once, a power of 2. More make the products faster, and more of them in vain."""
    return 128 if length >= 1024 else min(64, 1 << (length - 1).bit_length())


@torch.library.custom_op('mmdefocus::bandpass_attention', mutates_args=())
def _attend(q: Tensor, k: Tensor, v: Tensor, factors: Tensor, causal: bool) -> Tensor:
    length, size = q.shape[2], _block_size(q.shape[2])
    with torch.autocast(q.device.type, enabled=False):
        inside = _inside_blocks(q, k, factors, size, causal)
        out = torch.empty_like(v)
        for block, start in enumerate(range(0, length, size)):
            stop = min(start + size, length)
            weights = _row_logits(q, k, inside[:, :, block], factors, start, stop, causal).softmax(-1)
            out[:, :, start:stop] = weights @ v[:, :, : weights.shape[-1]]
    return out


@torch.library.custom_op('mmdefocus::bandpass_attention_backward', mutates_args=())
def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, factors: Tensor, out: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    length, size = q.shape[2], _block_size(q.shape[2])
    grad_q, grad_k, grad_v, grad_factors = (torch.zeros_like(x) for x in (q, k, v, factors))
    with torch.autocast(q.device.type, enabled=False):
        inside = _inside_blocks(q, k, factors, size, causal)
        grad_inside = torch.zeros_like(inside)
        mean = (grad * out).sum(-1, keepdim=True)  # (B, H, L, 1), of the gradients of the weights, weighted
        for block, start in enumerate(range(0, length, size)):
            stop = min(start + size, length)
            weights = _row_logits(q, k, inside[:, :, block], factors, start, stop, causal).softmax(-1)
            seen = weights.shape[-1]
            grad_v[:, :, :seen] += weights.mT @ grad[:, :, start:stop]
            grad_logits = grad[:, :, start:stop] @ v[:, :, :seen].mT
            grad_logits.sub_(mean[:, :, start:stop]).mul_(weights)
            before, within, after = grad_logits.split((start, stop - start, seen - stop), -1)
            grad_inside[:, :, block, : stop - start, : stop - start] = within
            query, grad_query = q[:, :, start:stop], grad_q[:, :, start:stop]
            if start > 0:
                more_q, more_k = tile_logits_backward(before, query, k[:, :, :start], factors, grad_factors)
                grad_query += more_q
                grad_k[:, :, :start] += more_k
            if seen > stop:
                more_k, more_q = tile_logits_backward(after.mT, k[:, :, stop:], query, factors, grad_factors)
                grad_query += more_q
                grad_k[:, :, stop:] += more_k
        q, k = _in_blocks(q, size), _in_blocks(k, size)
        more = block_logits_backward(grad_inside, q, k, factors, grad_factors, causal)
        for total, part in zip((grad_q, grad_k), more, strict=True):
            total += part.flatten(2, 3)[:, :, :length]
    return grad_q, grad_k, grad_v, grad_factors


def _inside_blocks(q: Tensor, k: Tensor, factors: Tensor, size: int, causal: bool) -> Tensor:
    """Logits between the tokens of every block, (B, H, G, size, size); -inf where a causal query does not see."""
    logits = block_logits(_in_blocks(q, size), _in_blocks(k, size), factors, causal)
    if causal:
        logits.masked_fill_(torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return logits


def _row_logits(q: Tensor, k: Tensor, inside: Tensor, factors: Tensor, start: int, stop: int, causal: bool) -> Tensor:
    """Logits of the queries of one block and all keys that they see, (B, H, stop - start, seen)."""
    query = q[:, :, start:stop]
    parts = [inside[:, :, : stop - start, : stop - start]]
    if start > 0:
        parts.insert(0, tile_logits(query, k[:, :, :start], factors))
    if not causal and stop < q.shape[2]:
        parts.append(tile_logits(k[:, :, stop:], query, factors).mT)
    return torch.cat(parts, dim=-1)


def _in_blocks(x: Tensor, size: int) -> Tensor:
    """(B, H, L, d) to (B, H, G, size, d), with zeros at the end."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % size)).unflatten(2, (-1, size))


@_attend.register_fake
def _(q, k, v, factors, causal):
    return torch.empty_like(v)


@_attend_backward.register_fake
def _(grad, q, k, v, factors, out, causal):
    return tuple(torch.empty_like(x) for x in (q, k, v, factors))


def _save(ctx, inputs, output):
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate(ctx, grad):
    return *_attend_backward(grad, *ctx.saved_tensors, ctx.causal), None


_attend.register_autograd(_differentiate, setup_context=_save)
refuse_second_derivatives('bandpass_attention')


def bandpass_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    freq: Tensor | None,
    causal: bool = True,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention whose logits pass a learnable band-pass (our reading of figure 2 of arXiv 2406.04342).

    With the channels 2j and 2j + 1 of a head as one complex number q_j::

        logit(t, s) = scale · Re sum over j of q_{t,j} conj(k_{s,j}) exp(-λ_j |t - s| + i θ_j (t - s))
        y_t = sum over s of softmax(logit(t, ·))_s v_s

    Memory grows linearly with L, in the backward pass too. Half types compute in float32, whatever autocast says.

    Args:
        q, k: (B, H, L, d), d even; float16, bfloat16, float32 or float64.
        v: (B, H, L, V).
        decay: λ ≥ 0 per token, the width of the band-pass, (H, d / 2). Infinity leaves a query the logit of its own
            key; those of others are 0. None for λ = 0. A negative value is an error on a CPU; elsewhere, and in a
            compiled graph, nobody looks.
        freq: θ in radians per token, the centre of the band-pass, (H, d / 2). None for θ = 0.
        causal: whether a token sees only itself and those before it.
        scale: 1 / sqrt(d) by default.
        backend: 'reference' for the loop that defines the result; 'triton' for GPU kernels, whose products are in the
            type of the tensors. None: what ``MMDEFOCUS_BACKEND`` names, if it is one of these, or else torch's own
            attention where ``decay`` is None, and blocks of queries in plain PyTorch, on any device, where it is not.

    Returns:
        (B, H, L, V), of the type of ``q``.

    Raises:
        TypeError: complex, integer or mixed float64 and other types.
        ValueError: shapes that do not fit, an odd d, an empty sequence, no heads, a negative decay, tensors on several
            devices, an unknown backend.
        RuntimeError: the named backend does not have the operator, or cannot run here.
    """
    op = 'bandpass_attention'
    compute = compute_dtype(op, {'q': q, 'k': k, 'v': v, 'decay': decay, 'freq': freq})
    check_arguments(op, q, k, v, decay, freq)
    backend = requested_backend(backend, q.device, compute, implemented=('triton', 'reference'))
    # Autocast would move the products back into half types; the meta device has none to switch off.
    with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
        if backend is None and decay is None:
            return _attend_without_decay(q, k, v, freq, causal, scale)
        query, key, value = (x.to(compute).contiguous() for x in (q, k, v))
        query = scaled(query, scale)
        decay, freq = or_zeros(decay, query), or_zeros(freq, query)
        if backend == 'reference':
            y = bandpass_attention_reference(query, key, value, decay, freq, causal)
        elif backend == 'triton':
            query, key, value = (x.to(q.dtype) for x in (query, key, value))
            y = triton_bandpass_attention.attend(query, key, value, decay, freq, causal)
        else:
            y = _attend(query, key, value, bandpass_factors(decay, freq, q.shape[2] - 1), causal)
    return y.to(q.dtype)


def _attend_without_decay(
    q: Tensor, k: Tensor, v: Tensor, freq: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    if freq is not None:
        compute = torch.promote_types(q.dtype, torch.float32)
        freq = freq.to(compute)
        factors = bandpass_factors(torch.zeros_like(freq), freq, q.shape[2] - 1)
        q, k = (turn(x.to(compute).contiguous()[:, :, None], factors, 0).squeeze(2).to(q.dtype) for x in (q, k))
    return F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), is_causal=causal, scale=scale)
