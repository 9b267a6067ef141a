"""Rows of the weights of attention and retention with a band-pass.

Shapes: B batch, H heads, L tokens, d channels of a head, T rows, S columns.
"""

import torch
from torch import Tensor

from mmdefocus.models.precision import at_least_float32
from mmdefocus.ops.bandpass.rotary import apply_rotary
from mmdefocus.ops.bandpass.tiles import block_logits, decay_factors, tile_logits


class BandpassLogits:
    """The logits of :func:`~mmdefocus.ops.bandpass_attention` and :func:`~mmdefocus.ops.retention`, by rows.

    Args:
        q, k: (B, H, L, d).
        decay, freq: (H, d / 2), or None.
        causal: Whether a token sees only itself and earlier tokens.
    """

    def __init__(self, q: Tensor, k: Tensor, decay: Tensor | None, freq: Tensor | None, causal: bool) -> None:
        heads, length, channels = q.shape[1:]
        q, k = at_least_float32(q) * channels**-0.5, at_least_float32(k)
        self._self_logits = (q * k).sum(-1, keepdim=True)  # (B, H, L, 1)
        self._q, self._k = apply_rotary(torch.stack((q, k)), freq).unbind()
        decay = q.new_zeros(heads, channels // 2) if decay is None else decay
        self._factors = decay_factors(decay.repeat_interleave(2, dim=1), length - 1)
        self._causal = causal

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the rows ``start`` to ``stop`` - 1: (B, H, T, stop), 0 above the diagonal, if causal, else (…, L)."""
        query, key = (x[:, :, start:stop] for x in (self._q, self._k))
        block_query, block_key, own = (x[:, :, None] for x in (query, key, self._self_logits[:, :, start:stop]))
        parts = [block_logits(block_query, block_key, own, self._factors, self._causal)[:, :, 0]]
        if start > 0:
            parts.insert(0, tile_logits(query, self._k[:, :, :start], self._factors))
        if not self._causal and stop < self._k.shape[2]:
            parts.append(tile_logits(self._k[:, :, stop:], query, self._factors).mT)
        return torch.cat(parts, -1)
