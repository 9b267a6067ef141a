"""Interface of token mixers.

Shapes: B batch, L tokens, C embed_dims.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class TokenMixer(nn.Module, ABC):
    """Base class of modules that mix the tokens of a sequence, (B, L, C) → (B, L, C)."""

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""

    @abstractmethod
    def forward(self, x: Tensor, positions: Tensor, delta_scale: float) -> Tensor:
        """Mix the tokens of a sequence.

        Args:
            x: Tokens (B, L, C).
            positions: Positions (L,), at least float32; see :func:`mmdefocus.models.positions.token_positions`.
            delta_scale: Image side in use / image side of the training. A mixer whose decay depends on distance divides
                its step size or its decay by this factor.

        Returns:
            (B, L, C), in the dtype of the projections.
        """
