"""Absolute positions of tokens, for networks without a band-pass.

Shapes: C embed_dims, H and W rows and columns of the token grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import at_least_float32


class AbsolutePositions(nn.Module):
    """Learned vectors for the cells of a token grid, resized (bicubic) to other grids, as in ViT.

    Args:
        embed_dims: C.
        grid: Rows and columns (H, W) of the token grid of the nominal image.
    """

    def __init__(self, embed_dims: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, embed_dims, *grid))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the initial values of ViT."""
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Return the vectors for ``grid``, (1, H, W, C), at least float32."""
        weight = at_least_float32(self.weight)
        if grid != tuple(weight.shape[2:]):
            weight = F.interpolate(weight, size=grid, mode='bicubic', align_corners=False)
        return weight.permute(0, 2, 3, 1)
