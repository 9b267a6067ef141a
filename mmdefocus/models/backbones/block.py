"""The block of the De-focus networks.

Shapes: B batch, L tokens, C embed_dims.
"""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from ..feed_forward import FeedForwardNetwork
from ..mixers import TokenMixer
from ..norms import RMSNorm

BLOCK_NORM_EPS = 1e-5


class DefocusBlock(nn.Module):
    """Pre-norm residual block, (B, L, C) → (B, L, C), with a residual stream of at least float32.

    x ← x + DropPath(mixer(RMSNorm(x))), then, with a feed-forward network, x ← x + DropPath(ffn(RMSNorm(x))).

    Args:
        mixer: Mixes the tokens.
        embed_dims: C.
        drop_path_rate: Probability of dropping a branch of a sample in training. ``drop_path.drop_prob`` may be
            changed later.
        ffn: Maps the channels of every token; None for a block without a feed-forward network.
    """

    def __init__(
        self, mixer: TokenMixer, embed_dims: int, drop_path_rate: float, ffn: FeedForwardNetwork | None = None
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(embed_dims, eps=BLOCK_NORM_EPS)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path_rate)
        self.ffn_norm = None if ffn is None else RMSNorm(embed_dims, eps=BLOCK_NORM_EPS)
        self.ffn = ffn

    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""
        for part in (self.norm, self.mixer, self.ffn_norm, self.ffn):
            if part is not None:
                part.reset_parameters()

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Map tokens to tokens; ``positions`` (L,) and ``delta_scale`` go to the mixer."""
        mixed = self.mixer(self.norm(x), positions, delta_scale)
        x = x + self.drop_path(mixed.to(x.dtype))
        if self.ffn is None or self.ffn_norm is None:
            return x
        return x + self.drop_path(self.ffn(self.ffn_norm(x)).to(x.dtype))
