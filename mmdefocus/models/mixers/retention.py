"""The De-focus RetNet mixer: retention with a learnable band-pass.

Shapes: B batch, L tokens, C embed_dims, E value_dims, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdefocus.ops import retention, rms_norm

from .bandpass import Bandpass
from .token_mixer import TokenMixer

NORM_EPS = 1e-6


class RetentionMixer(TokenMixer):
    """Gated multi-head retention (RetNet, arXiv 2307.08621, section 2.3), (B, L, C) → (B, L, C), causal.

    The output of every head is divided by its root mean square, multiplied by SiLU of a gate, and projected. Decay and
    frequency are learnable per head and channel pair (``docs/bandpass.md``).

    Args:
        embed_dims: C, the number of channels of queries and keys of all heads.
        num_heads: H, divides C and E; C / H is even.
        value_dims: E, the number of channels of values and gate of all heads.
        band_pass: If True, apply the band-pass. Without it, this is plain linear attention, which ignores positions.

    Raises:
        ValueError: If ``embed_dims`` or ``value_dims`` does not divide into heads or, with the band-pass,
            ``embed_dims`` into pairs of channels.
    """

    def __init__(self, embed_dims: int, num_heads: int, value_dims: int, band_pass: bool = True) -> None:
        super().__init__()
        for name, dims in (('embed_dims', embed_dims), ('value_dims', value_dims)):
            if dims % num_heads:
                raise ValueError(f'{name} must be a multiple of num_heads ({num_heads}), got {dims}')
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embed_dims, embed_dims, bias=False)
        self.k_proj = nn.Linear(embed_dims, embed_dims, bias=False)
        self.v_proj = nn.Linear(embed_dims, value_dims, bias=False)
        self.gate_proj = nn.Linear(embed_dims, value_dims, bias=False)
        self.band_pass = Bandpass(num_heads, embed_dims) if band_pass else None
        self.out_proj = nn.Linear(value_dims, embed_dims, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the initial values, as in the other mixers."""
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.gate_proj, self.out_proj):
            nn.init.trunc_normal_(projection.weight, std=0.02)
        if self.band_pass is not None:
            self.band_pass.reset_parameters()

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Mix the tokens; see :meth:`TokenMixer.forward`. ``delta_scale`` divides the decay."""
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, L, channels of the head)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        decay, freq = (None, None) if self.band_pass is None else self.band_pass(positions, delta_scale)
        y = retention(q, k, v, decay, freq).transpose(1, 2)  # (B, L, H, channels of the head)
        gate = self.gate_proj(x)
        y = rms_norm(y, y.new_ones(y.shape[-1]), NORM_EPS, gate.dtype).flatten(2)  # (B, L, E)
        return self.out_proj(y * F.silu(gate))
