"""Feed-forward networks: the second half of the blocks of De-focus ViT and De-focus RetNet.

Shapes: C embed_dims, F hidden_dims.
"""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn


class FeedForwardNetwork(nn.Module, ABC):
    """Base class of modules that map the channels of every token, (..., C) → (..., C)."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map the channels of every token."""


class FeedForward(FeedForwardNetwork):
    """down(GELU(up(x))), with biases, as in ViT, (..., C) → (..., C).

    Args:
        embed_dims: C.
        hidden_dims: F.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.up = nn.Linear(embed_dims, hidden_dims)
        self.down = nn.Linear(hidden_dims, embed_dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the initial values of DeiT."""
        for layer in (self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class GatedFeedForward(FeedForwardNetwork):
    """down(SiLU(gate(x)) · up(x)), without biases (Shazeer, arXiv 2002.05202), (..., C) → (..., C).

    Args:
        embed_dims: C.
        hidden_dims: F.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.gate = nn.Linear(embed_dims, hidden_dims, bias=False)
        self.up = nn.Linear(embed_dims, hidden_dims, bias=False)
        self.down = nn.Linear(hidden_dims, embed_dims, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the initial values of the token mixers."""
        for layer in (self.gate, self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))
