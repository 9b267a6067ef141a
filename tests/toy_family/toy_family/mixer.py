"""A token mixer: an exponential moving average with a learnable rate per channel.

Shapes: B batch, L tokens, C channels.
"""

import torch
from torch import Tensor, nn

from mmdefocus.models.mixers import TokenMixer


class MovingAverageMixer(TokenMixer):
    """Project y_t = (1 − a) y_{t−1} + a x_t, (B, L, C) → (B, L, C), causal.

    Args:
        embed_dims: C.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.empty(embed_dims))
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.rate)
        nn.init.trunc_normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        a = (self.rate / delta_scale).sigmoid()  # (C,)
        average, averages = torch.zeros_like(x[:, 0]), []
        for token in x.unbind(1):
            average = torch.lerp(average, token, a)
            averages.append(average)
        return self.proj(torch.stack(averages, dim=1))
