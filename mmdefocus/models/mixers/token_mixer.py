"""What a backbone expects of a token mixer."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class TokenMixer(nn.Module, ABC):
    """A module that mixes the tokens of a sequence, (B, L, C) → (B, L, C)."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""

    @abstractmethod
    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Mix the tokens of a sequence.

        Args:
            x: (B, L, C).
            positions: (L,), at least float32; see :func:`mmdefocus.models.positions.token_positions`.
            delta_scale: Side in use / side of the training; divides what measures distances for the decay.

        Returns:
            (B, L, C), in the dtype of the projections.
        """
