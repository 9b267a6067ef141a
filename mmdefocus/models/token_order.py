"""Conversion between token grids and sequences, in raster order or window by window.

Shapes: B batch, H and W rows and columns of the token grid, C channels, S side of a window in tokens.
"""

from torch import Tensor


def image_to_sequence(tokens: Tensor, window: int | None = None) -> Tensor:
    """Arrange a token grid as a sequence.

    Args:
        tokens: Token grid (B, H, W, C).
        window: None for raster order (row by row). A side S for window order: the grid is cut into windows of
            S × S tokens; windows follow row by row, and so do the tokens of each window.

    Returns:
        (B, H * W, C).

    Raises:
        ValueError: If H or W is not a multiple of ``window``.
    """
    if window is None:
        return tokens.flatten(1, 2)
    rows, columns = _count_windows(tokens.shape[1], tokens.shape[2], window)
    split = tokens.unflatten(2, (columns, window)).unflatten(1, (rows, window))  # (B, H/S, S, W/S, S, C)
    return split.transpose(2, 3).flatten(1, 4)


def sequence_to_image(sequence: Tensor, grid: tuple[int, int], window: int | None = None) -> Tensor:
    """Undo :func:`image_to_sequence`.

    Args:
        sequence: Tokens (B, H * W, C), without a class token.
        grid: Rows and columns (H, W).
        window: As for :func:`image_to_sequence`.

    Returns:
        (B, H, W, C).

    Raises:
        ValueError: If the sequence does not have H * W tokens, or if H or W is not a multiple of ``window``.
    """
    height, width = grid
    if sequence.shape[1] != height * width:
        raise ValueError(
            f'expected a sequence of {height} * {width} = {height * width} tokens for the grid {height} x {width}, '
            f'got {sequence.shape[1]}; leave the class token out'
        )
    if window is None:
        return sequence.unflatten(1, (height, width))
    rows, columns = _count_windows(height, width, window)
    split = sequence.unflatten(1, (rows, columns, window, window))  # (B, H/S, W/S, S, S, C)
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _count_windows(height: int, width: int, window: int) -> tuple[int, int]:
    if height % window or width % window:
        raise ValueError(
            f'expected a token grid whose sides are multiples of the window side {window}, got {height} x {width}; '
            'pad the image'
        )
    return height // window, width // window
