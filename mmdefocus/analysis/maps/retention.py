"""Attention maps of the De-focus RetNet mixer: retention, and the operations after it.

Shapes: B batch, L tokens, H heads, E channels of the values of all heads.
"""

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor

from mmdefocus.models.mixers import RetentionMixer
from mmdefocus.models.mixers.retention import NORM_EPS
from mmdefocus.models.precision import at_least_float32
from mmdefocus.ops import retention

from .bandpass import BandpassLogits
from .layer_maps import LayerMaps, Reduce
from .mixer_calls import MixerCall


class RetentionMaps(LayerMaps):
    """Maps of :class:`~mmdefocus.models.mixers.RetentionMixer`: q kᵀ with its band-pass; y = A v per head.

    ``include=('gate',)`` gives diag(silu(gate)) diag(s) A, a map per channel of the values, with s = 1 / root mean
    square of the head's output, a number of the given images. Otherwise all channels of a head have the same map;
    ``reduce='none'`` repeats it.
    """

    def __init__(self, call: MixerCall, reduce: Reduce, include: Collection[str]) -> None:
        mixer = call.mixer
        assert isinstance(mixer, RetentionMixer)
        with call.autocast_of_call():  # as in RetentionMixer.forward
            q, k, v = (
                projection(call.x).unflatten(-1, (mixer.num_heads, -1)).transpose(1, 2)
                for projection in (mixer.q_proj, mixer.k_proj, mixer.v_proj)
            )
            gate = mixer.gate_proj(call.x)
        super().__init__(call, mixer.num_heads, v.shape[-1], reduce)
        self._q, self._k = at_least_float32(q), at_least_float32(k)
        self._v = at_least_float32(v).transpose(1, 2).flatten(2)  # (B, L, E)
        band_pass = mixer.band_pass
        self._decay: Tensor | None = None
        self._freq: Tensor | None = None
        if band_pass is not None:
            self._decay, self._freq = band_pass(call.positions, call.delta_scale)
        self._logits = BandpassLogits(self._q, self._k, self._decay, self._freq, causal=True)
        self.gate = 'gate' in include
        self._silu = F.silu(at_least_float32(gate))
        self._row_weight = self._silu * self._norm_scale(self._retain(self._v))

    def respond(self, values: Tensor) -> Tensor:
        y = self._retain(values)
        return self._row_weight * y if self.gate else y

    def output(self) -> Tensor:
        y = self.respond(self._v)
        return y if self.gate else self._silu * self._norm_scale(y) * y

    def compute_rows(self, start: int, stop: int) -> Tensor:
        rows = self._logits.rows(start, stop)
        if self.gate:
            weight = self._row_weight[:, start:stop].mT.unflatten(1, (self.groups, self.channels))  # (B, H, E / H, T)
            if self.reduce == 'none':
                return (rows[:, :, None] * weight[..., None]).flatten(1, 2)
            return rows * weight.mean(2)[..., None]
        return rows.repeat_interleave(self.channels, 1) if self.reduce == 'none' else rows

    def _retain(self, values: Tensor) -> Tensor:
        v = values.unflatten(-1, (self.groups, self.channels)).transpose(1, 2)
        return retention(self._q, self._k, v, self._decay, self._freq).transpose(1, 2).flatten(2)

    def _norm_scale(self, y: Tensor) -> Tensor:
        """Return 1 / root mean square of the heads, (B, L, E)."""
        square = y.unflatten(-1, (self.groups, self.channels)).square().mean(-1)
        return (square + NORM_EPS).rsqrt().repeat_interleave(self.channels, -1)
