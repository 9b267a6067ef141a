"""Attention maps of the De-focus Mamba mixer: selective scan, and the operations around it.

Shapes: B batch, L tokens, E channels, N state, W width of the convolution, G channels of a group.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.models.linear_halves import linear_halves
from mmdefocus.models.mixers import MambaMixer
from mmdefocus.models.precision import at_least_float32, autocast_off
from mmdefocus.ops import causal_conv1d, selective_scan
from mmdefocus.ops.defocus_scan.rotary import learnable_rotary

from .layer_maps import LayerMaps, Reduce
from .mixer_calls import MixerCall
from .selective_scan import ScanMatrix, scan_rows

NORM_EPS = 1e-6  # of defocus_scan


class MambaMaps(LayerMaps):
    """Maps of :class:`~mmdefocus.models.mixers.MambaMixer`: y = α u per channel, as in arXiv 2403.01590.

    The parts that ``include`` adds follow arXiv 2405.16504. With x the first half of ``in_proj``'s output, s the factor
    of the group norm and z the gate:

    - ``'conv'``: the convolution M, c = M x + bias, and SiLU, u = σ(c) c: α diag(σ(c)) M acts on x. The bias adds
      α σ(c) bias, which no map contains.
    - ``'gate'``: diag(silu(z)) (diag(s) α + diag(D)).

    Like the softmax, σ(c), s and silu(z) are numbers of the given images.
    """

    def __init__(self, call: MixerCall, reduce: Reduce, include: Collection[str]) -> None:
        mixer = call.mixer
        assert isinstance(mixer, MambaMixer)
        channels = mixer.D.shape[0]
        super().__init__(call, channels // mixer.group_size, mixer.group_size, reduce)
        self.conv, self.gate = 'conv' in include, 'gate' in include
        # As in MambaMixer.forward, but with the convolution before its SiLU, too.
        with call.autocast_of_call():
            x, gate = linear_halves(call.x, mixer.in_proj.weight)
            kernel, bias = mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias
            u = causal_conv1d(x.mT, kernel, bias, activation='silu').mT
            dt, b, c = mixer.x_proj(u).split((mixer.dt_rank, mixer.state_dims, mixer.state_dims), dim=-1)
            dt = F.linear(dt, mixer.dt_proj.weight)
        with autocast_off(x.device):
            self._x, self._u, gate, dt, b, c, self._kernel, self._skip, dt_bias, log_decay = (
                at_least_float32(tensor)
                for tensor in (x, u, gate, dt, b, c, kernel, mixer.D, mixer.dt_proj.bias, mixer.A_log)
            )
            if mixer.freq is not None:
                b, c = (learnable_rotary(v, call.positions, at_least_float32(mixer.freq)) for v in (b, c))
            self._b, self._c, self._decay = b, c, -log_decay.exp()
            self._delta = F.softplus(dt + dt_bias) / call.delta_scale  # (B, L, E)
            self._silu = F.silu(gate)
            assert bias is not None
            self._bias = at_least_float32(bias)
            self._sigma = torch.sigmoid(self._convolve(self._x) + self._bias)
            self._scale = self._norm_scale(self._scan(self._u))
        self._matrix = self._factors()

    def respond(self, values: Tensor) -> Tensor:
        return self._respond_to_scanned(self._sigma * self._convolve(values) if self.conv else values)

    def output(self) -> Tensor:
        if self.conv:
            y = self.respond(self._x) + self._respond_to_scanned(self._sigma * self._bias)
        else:
            y = self.respond(self._u)
        return y if self.gate else self._silu * (self._norm_scale(y) * y + self._skip * self._u)

    def compute_rows(self, start: int, stop: int) -> Tensor:
        return torch.cat([self._rows_of_group(group, start, stop) for group in range(self.groups)], 1)

    def _rows_of_group(self, group: int, start: int, stop: int) -> Tensor:
        first, last = group * self.channels, (group + 1) * self.channels
        matrix, decay = self._matrix.channels(first, last), self._decay[first:last]
        taps = scan_rows(matrix, decay, start, stop, mean=self.reduce != 'none')
        rows = taps[-1]
        for shift, tap in enumerate(reversed(taps[:-1]), start=1):  # column j of this tap weighs x_{j - shift}
            rows[..., : max(stop - shift, 0)] += tap[..., shift:]
        return rows

    def _respond_to_scanned(self, u: Tensor) -> Tensor:
        y = self._scan(u)
        return self._silu * (self._scale * y + self._skip * u) if self.gate else y

    def _convolve(self, values: Tensor) -> Tensor:
        return causal_conv1d(values.mT, self._kernel).mT

    def _scan(self, u: Tensor) -> Tensor:
        return selective_scan(u.mT, self._delta.mT, self._decay, self._b.mT, self._c.mT).mT

    def _norm_scale(self, y: Tensor) -> Tensor:
        """Return 1 / root mean square of the channel groups, (B, L, E)."""
        square = y.unflatten(-1, (self.groups, self.channels)).square().mean(-1)
        return (square + NORM_EPS).rsqrt().repeat_interleave(self.channels, -1)

    def _factors(self) -> ScanMatrix:
        ones, zeros = (self._u.new_full((), value).expand_as(self._u) for value in (1.0, 0.0))
        taps = self._kernel.T[:, None, None] * self._sigma if self.conv else ones[None]  # (W or 1, B, L, E)
        row_weight, diagonal = (self._silu * self._scale, self._silu * self._skip) if self.gate else (ones, zeros)
        return ScanMatrix(self._delta, self._b, self._c, row_weight, diagonal, taps)
