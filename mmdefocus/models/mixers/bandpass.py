"""The learnable band-pass of De-focus ViT and De-focus RetNet: a decay and a frequency per head and channel pair.

Shapes: L tokens, H heads, P channel pairs of a head.
"""

import math

import torch
from torch import Tensor, nn

from ..positions import initial_frequencies
from ..precision import at_least_float32, autocast_off

# Initial half-lives of the decay of the first and the last head, in tokens.
SHORTEST_HALF_LIFE, LONGEST_HALF_LIFE = 4.0, 4096.0


class Bandpass(nn.Module):
    """Learnable decays λ = exp(``log_decay``) > 0 and frequencies θ = ``freq``, both (H, P).

    The paper gives no initial values; these are our choice. As in RetNet, heads differ in their decay: the half-life
    grows geometrically from 4 to 4096 tokens. As in RoPE, the channel pairs of a head differ in their frequency, which
    falls from about 1 to 0 radians per token as in De-focus Mamba.

    Args:
        num_heads: H.
        embed_dims: 2 · H · P, the number of channels of all heads.

    Raises:
        ValueError: If ``embed_dims`` does not divide into pairs of channels for every head.
    """

    def __init__(self, num_heads: int, embed_dims: int) -> None:
        super().__init__()
        if embed_dims % (2 * num_heads):
            raise ValueError(
                f'embed_dims must be a multiple of 2 * num_heads ({2 * num_heads}; channels rotate in pairs), '
                f'got {embed_dims}'
            )
        pairs = embed_dims // (2 * num_heads)
        self.log_decay = nn.Parameter(torch.empty(num_heads, pairs))
        self.freq = nn.Parameter(torch.empty(num_heads, pairs))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the initial values."""
        num_heads, pairs = self.freq.shape
        half_lives = torch.linspace(math.log(SHORTEST_HALF_LIFE), math.log(LONGEST_HALF_LIFE), num_heads).exp()
        self.log_decay.copy_((math.log(2) / half_lives).log()[:, None].expand(-1, pairs))
        self.freq.copy_(initial_frequencies(pairs).expand(num_heads, -1))

    def forward(self, positions: Tensor, delta_scale: float) -> tuple[Tensor, Tensor]:
        """Compute decay and frequency per token, both (H, P) and at least float32.

        Args:
            positions: Evenly spaced positions (L,); frequencies are per unit of position.
            delta_scale: Divides the decay.
        """
        spacing = positions[1] - positions[0] if positions.shape[0] > 1 else positions[0]
        with autocast_off(positions.device):
            return at_least_float32(self.log_decay).exp() / delta_scale, at_least_float32(self.freq) * spacing
