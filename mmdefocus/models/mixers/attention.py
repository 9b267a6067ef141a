"""The De-focus ViT mixer: softmax attention with a learnable band-pass.

Shapes: B batch, L tokens, C embed_dims, H heads, d = C / H channels of a head.
"""

import torch
from torch import Tensor, nn

from mmdefocus.ops import bandpass_attention

from .bandpass import Bandpass
from .token_mixer import TokenMixer


class AttentionMixer(TokenMixer):
    """Multi-head attention, (B, L, C) → (B, L, C), with a band-pass on its logits (``docs/bandpass.md``).

    Args:
        embed_dims: C.
        num_heads: H, divides C; with the band-pass, C / H is even.
        causal: If True, a token attends only to itself and to earlier tokens.
        band_pass: If True, apply the band-pass. Without it, this is plain attention, which ignores positions.

    Raises:
        ValueError: If ``embed_dims`` does not divide into heads or, with the band-pass, into pairs of channels.
    """

    def __init__(self, embed_dims: int, num_heads: int, causal: bool = True, band_pass: bool = True) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims must be a multiple of num_heads ({num_heads}), got {embed_dims}')
        self.num_heads = num_heads
        self.causal = causal
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.band_pass = Bandpass(num_heads, embed_dims) if band_pass else None
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the initial values, as in the other mixers and in DeiT."""
        for projection in (self.qkv, self.out_proj):
            nn.init.trunc_normal_(projection.weight, std=0.02)
            nn.init.zeros_(projection.bias)
        if self.band_pass is not None:
            self.band_pass.reset_parameters()

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Mix the tokens; see :meth:`TokenMixer.forward`. ``delta_scale`` divides the decay."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, L, d)
        decay, freq = (None, None) if self.band_pass is None else self.band_pass(positions, delta_scale)
        y = bandpass_attention(q, k, v, decay, freq, causal=self.causal)
        return self.out_proj(y.transpose(1, 2).flatten(2))
