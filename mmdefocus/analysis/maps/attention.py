"""Attention maps of the De-focus ViT mixer.

Shapes: B batch, L tokens, H heads, d channels of a head, E = H · d.
"""

import torch
from torch import Tensor

from mmdefocus.models.mixers import AttentionMixer
from mmdefocus.models.precision import at_least_float32
from mmdefocus.ops import bandpass_attention

from .bandpass import BandpassLogits
from .layer_maps import LayerMaps, Reduce
from .mixer_calls import MixerCall


class AttentionMaps(LayerMaps):
    """Maps of :class:`~mmdefocus.models.mixers.AttentionMixer`: the softmax with its band-pass; y = A v per head.

    All channels of a head have the same map; ``reduce='none'`` repeats it.
    """

    def __init__(self, call: MixerCall, reduce: Reduce) -> None:
        mixer = call.mixer
        assert isinstance(mixer, AttentionMixer)
        with call.autocast_of_call():  # as in AttentionMixer.forward
            qkv = mixer.qkv(call.x).unflatten(-1, (3, mixer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        self._q, self._k, self._v = at_least_float32(qkv)  # (B, H, L, d)
        super().__init__(call, mixer.num_heads, self._v.shape[-1], reduce)
        band_pass = mixer.band_pass
        self._decay: Tensor | None = None
        self._freq: Tensor | None = None
        if band_pass is not None:
            self._decay, self._freq = band_pass(call.positions, call.delta_scale)
        self._causal = mixer.causal
        self._logits = BandpassLogits(self._q, self._k, self._decay, self._freq, mixer.causal)

    def respond(self, values: Tensor) -> Tensor:
        v = values.unflatten(-1, (self.groups, self.channels)).transpose(1, 2)
        y = bandpass_attention(self._q, self._k, v, self._decay, self._freq, causal=self._causal)
        return y.transpose(1, 2).flatten(2)

    def output(self) -> Tensor:
        return self.respond(self._v.transpose(1, 2).flatten(2))

    def compute_rows(self, start: int, stop: int) -> Tensor:
        logits = self._logits.rows(start, stop)
        if self._causal:
            columns = torch.arange(stop, device=logits.device)
            logits = logits.masked_fill(columns > columns[start:, None], -torch.inf)
        rows = logits.softmax(-1)
        return rows.repeat_interleave(self.channels, 1) if self.reduce == 'none' else rows
