"""Where the tokens of a sequence lie in the image.

Shapes: L tokens of the sequence, R and W rows and columns of the token grid.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import AnalysisError

OUTSIDE = -1  # cell of a token that is no part of the image


@dataclass(frozen=True)
class TokenLayout:
    """Cells of the token grid for the tokens of a sequence.

    Attributes:
        grid: Rows and columns of the token grid, padding included.
        cells: For every token, row · columns + column of its cell, or ``OUTSIDE`` for class tokens and registers; (L),
            int64.
        image_grid: Rows and columns that show the image; the cells right of and below them are padding.
        class_token: Position of the class token in the sequence; None without one.
        causal: Whether a token sees only itself and earlier tokens of the sequence.
    """

    grid: tuple[int, int]
    cells: Tensor
    image_grid: tuple[int, int]
    class_token: int | None
    causal: bool

    @property
    def length(self) -> int:
        """Number of tokens of the sequence."""
        return self.cells.shape[0]

    def to_grid(self, values: Tensor) -> Tensor:
        """Arrange values of the tokens (…, L) as a map of the image, (…, R, W); padding is left out."""
        inside = self.cells != OUTSIDE
        flat = values.new_zeros(*values.shape[:-1], math.prod(self.grid))
        flat[..., self.cells[inside].to(values.device)] = values[..., inside.to(values.device)]
        rows, columns = self.image_grid
        return flat.unflatten(-1, self.grid)[..., :rows, :columns]

    def token_at(self, row: int, column: int) -> int:
        """Return the position in the sequence of the token of a cell.

        Raises:
            AnalysisError: The cell is outside the image.
        """
        rows, columns = self.image_grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise AnalysisError(f'expected a cell of the {rows} x {columns} token grid, got ({row}, {column})')
        return int((self.cells == row * self.grid[1] + column).nonzero()[0])

    def visible_mask(self) -> Tensor:
        """Return (L, L) booleans: which tokens (columns) a token (row) may depend on, by causality alone."""
        visible = torch.ones(self.length, self.length, dtype=torch.bool)
        return visible.tril() if self.causal else visible


def grid_queries(layout: TokenLayout, side: int) -> list[int]:
    """Return the class token, if there is one, and the tokens of evenly spread rows and columns, at most side²."""
    rows, columns = (
        [int((step + 0.5) * count / min(side, count)) for step in range(min(side, count))]
        for count in layout.image_grid
    )
    first = [] if layout.class_token is None else [layout.class_token]
    return first + [layout.token_at(row, column) for row in rows for column in columns]


def grid_of_image(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Return the token grid (rows, columns) with the image's aspect ratio and at most ``tokens`` cells.

    The remaining tokens, at most 16, are class tokens or registers. None if no such grid exists.
    """
    for extra in range(min(17, tokens)):
        side = math.sqrt(height * width / (tokens - extra))
        rows, columns = round(height / side), round(width / side)
        if rows * columns == tokens - extra:
            return rows, columns
    return None
