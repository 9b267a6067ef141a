"""Attention with a decay per channel, computed by blocks of queries: the PyTorch backend.

Only the logits of one block of queries exist at a time, so memory grows linearly with L.

Shapes: B batch, H heads, G blocks, C tokens of a block, L tokens, S keys of a block of queries, d channels of a head,
V channels of a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .tiles import (
    block_logits,
    block_logits_backward,
    decay_factors,
    decay_factors_backward,
    tile_logits,
    tile_logits_backward,
)


def attend(
    q: Tensor, k: Tensor, v: Tensor, self_logits: Tensor, decay: Tensor, causal: bool, softmax: bool
) -> tuple[Tensor, Tensor]:
    """Compute the operator ``mmdefocus::bandpass_attention``; see there for arguments and results."""
    length, size = q.shape[2], block_size(q.shape[2])
    factors = decay_factors(decay, length - 1)
    query, key, own = (split_into_blocks(x, size) for x in (q, k, self_logits))
    intra_block = block_logits(query, key, own, factors, causal)
    if causal and softmax:
        intra_block.masked_fill_(torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    out = torch.empty_like(v)
    for block, start in enumerate(range(0, length, size)):
        stop = min(start + size, length)
        weights = _row_weights(q, k, intra_block[:, :, block], factors, start, stop, causal, softmax)
        out[:, :, start:stop] = weights @ v[:, :, : weights.shape[-1]]
    return out, intra_block


def attend_backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    out: Tensor,
    intra_block: Tensor,
    causal: bool,
    softmax: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of q, k, v, self_logits and decay; logits between blocks are recomputed."""
    length, size = q.shape[2], intra_block.shape[-1]
    factors = decay_factors(decay, length - 1)
    grad_q, grad_k, grad_v, grad_factors = (torch.zeros_like(x) for x in (q, k, v, factors))
    grad_intra_block = torch.zeros_like(intra_block)
    delta = (grad_output * out).sum(-1, keepdim=True) if softmax else None  # (B, H, L, 1)
    for block, start in enumerate(range(0, length, size)):
        stop = min(start + size, length)
        weights = _row_weights(q, k, intra_block[:, :, block], factors, start, stop, causal, softmax)
        keys = weights.shape[-1]
        grad_v[:, :, :keys] += weights.mT @ grad_output[:, :, start:stop]
        grad_logits = grad_output[:, :, start:stop] @ v[:, :, :keys].mT
        if delta is not None:
            grad_logits.sub_(delta[:, :, start:stop]).mul_(weights)
        before, within, after = grad_logits.split((start, stop - start, keys - stop), -1)
        grad_intra_block[:, :, block, : stop - start, : stop - start] = within
        query, grad_query = q[:, :, start:stop], grad_q[:, :, start:stop]
        if start > 0:
            more_q, more_k = tile_logits_backward(before, query, k[:, :, :start], factors, grad_factors)
            grad_query += more_q
            grad_k[:, :, :start] += more_k
        if keys > stop:
            more_k, more_q = tile_logits_backward(after.mT, k[:, :, stop:], query, factors, grad_factors)
            grad_query += more_q
            grad_k[:, :, stop:] += more_k
    q, k = split_into_blocks(q, size), split_into_blocks(k, size)
    more = block_logits_backward(grad_intra_block, q, k, factors, grad_factors, causal)
    more_q, more_k, grad_self = (x.flatten(2, 3)[:, :, :length] for x in more)
    grad_q += more_q
    grad_k += more_k
    return grad_q, grad_k, grad_v, grad_self.contiguous(), decay_factors_backward(grad_factors, factors)


def split_into_blocks(x: Tensor, size: int) -> Tensor:
    """Split (B, H, L, d) into (B, H, G, size, d), padded with zeros at the end."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % size)).unflatten(2, (-1, size))


def block_size(length: int) -> int:
    """Return the number of queries per block, a power of 2.

    Larger blocks make the matrix products more efficient, but compute more logits that the causal mask discards.
    """
    return 128 if length >= 1024 else min(64, 1 << (length - 1).bit_length())


def _row_weights(
    q: Tensor,
    k: Tensor,
    intra_block: Tensor,
    factors: Tensor,
    start: int,
    stop: int,
    causal: bool,
    softmax: bool,
) -> Tensor:
    """Return the weights of all keys that the queries of one block attend to, (B, H, stop - start, S)."""
    query = q[:, :, start:stop]
    parts = [intra_block[:, :, : stop - start, : stop - start]]
    if start > 0:
        parts.insert(0, tile_logits(query, k[:, :, :start], factors))
    if not causal and stop < q.shape[2]:
        parts.append(tile_logits(k[:, :, stop:], query, factors).mT)
    logits = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
    return logits.softmax(-1) if softmax else logits
