"""Relative position bias at continuous positions: a table that is interpolated, or a small network.

Shapes: B batch, h heads, g offset groups, N queries, S keys of a group.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import at_least_float32, autocast_off


class PositionBias(nn.Module, ABC):
    """Base class of modules that map the positions of queries and keys to a bias of the logits."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""

    @abstractmethod
    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute the bias of the logits.

        Args:
            queries: (N, 2), y and x as in :mod:`.deformable_sampling`, at least float32.
            keys: (B, g, S, 2), of the same type.

        Returns:
            (B, h, N, S), at least float32. Group k of the keys belongs to the k-th h / g heads.
        """


class TablePositionBias(PositionBias):
    """Bilinear interpolation of a table of all displacements of a nominal map (arXiv 2309.01430, section 3.2).

    The displacement (query - key) / 2 spans the table whatever the size of the map, so a table needs no resizing.

    Args:
        num_heads: h.
        map_size: Rows and columns n of the nominal map; the table has (2 n - 1)² entries per head.
    """

    def __init__(self, num_heads: int, map_size: int) -> None:
        super().__init__()
        side = 2 * map_size - 1
        self.weight = nn.Parameter(torch.empty(num_heads, side, side))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table from a truncated normal distribution of standard deviation 0.01."""
        nn.init.trunc_normal_(self.weight, std=0.01)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        batch, groups = keys.shape[:2]
        with autocast_off(keys.device):
            # The large tensor is made in one step: here, memory counts.
            displacements = queries[:, None].flip(-1) / 2 - keys.flatten(0, 1)[:, None].flip(-1) / 2  # (B * g, N, S, 2)
            table = self.weight.to(keys.dtype).unflatten(0, (groups, -1))  # (g, h / g, 2 n - 1, 2 n - 1)
            table = table.expand(batch, -1, -1, -1, -1).flatten(0, 1)
            bias = F.grid_sample(table, displacements, align_corners=True)
        return bias.view(batch, -1, *bias.shape[-2:])  # (B, h, N, S)


class LogPositionBias(PositionBias):
    """A network of logarithmic displacements, as in Swin V2 (arXiv 2111.09883, section 3.3); all groups share it.

    Args:
        num_heads: h / g, heads of a group.
    """

    HIDDEN = 32

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(2, self.HIDDEN)
        self.linear2 = nn.Linear(self.HIDDEN, num_heads, bias=False)

    def reset_parameters(self) -> None:
        """Set PyTorch's initial values."""
        self.linear1.reset_parameters()
        self.linear2.reset_parameters()

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        with autocast_off(keys.device):
            displacements = 4 * (queries[:, None] - keys[:, :, None])  # (B, g, N, S, 2)
            scaled = displacements.sign() * displacements.abs().add(1).log2() / 3
            hidden = F.relu(F.linear(scaled, *(at_least_float32(p) for p in self.linear1.parameters())))
            bias = F.linear(hidden, at_least_float32(self.linear2.weight))  # (B, g, N, S, h / g)
        return bias.movedim(-1, 2).flatten(1, 2)  # (B, h, N, S)
