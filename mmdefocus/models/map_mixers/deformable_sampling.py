"""Where deformable attention samples its keys: reference points, offsets and bilinear interpolation.

Coordinates are (y, x), scaled so that -1 and 1 are the centres of the first and the last pixel of an axis.

Shapes: B batch, g offset groups, C channels, H and W rows and columns of the map, Hk and Wk of the keys.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import at_least_float32

ReferencePoints = Literal['Hk - 1', 'Hk']
REFERENCE_POINTS: tuple[ReferencePoints, ...] = ('Hk - 1', 'Hk')


def key_points(height: int, width: int, reference_points: ReferencePoints, like: Tensor) -> Tensor:
    """Return the reference points of the keys, (Hk, Wk, 2): 2 (i + 0.5) / (Hk - 1) - 1 or 2 (i + 0.5) / Hk - 1.

    Args:
        height, width: Hk, Wk.
        reference_points: The denominator. The points of DAT++ (``'Hk - 1'``) lie further down and to the right than
            the centres of the cells, those of DAT (``'Hk'``); the published weights are trained with them.
        like: Tensor whose device and dtype the points have.
    """
    rows, columns = (
        2 * (torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) / _denominator(size, reference_points) - 1
        for size in (height, width)
    )
    return torch.cartesian_prod(rows, columns).view(height, width, 2)


def query_points(height: int, width: int, reference_points: ReferencePoints, like: Tensor) -> Tensor:
    """Return the coordinates of the queries, (H * W, 2): 2 i / (H - 1) - 1 in DAT++, cell centres in DAT."""
    if reference_points == 'Hk':
        return key_points(height, width, reference_points, like).flatten(0, 1)
    rows, columns = (
        2 * torch.arange(size, dtype=like.dtype, device=like.device) / _denominator(size, reference_points) - 1
        for size in (height, width)
    )
    return torch.cartesian_prod(rows, columns)


def add_offsets(offsets: Tensor, offset_range: float, reference_points: ReferencePoints) -> Tensor:
    """Move the reference points by the offsets.

    Args:
        offsets: (B, g, 2, Hk, Wk), y and x.
        offset_range: If negative, positions are clamped to [-1, 1]. Else an offset is at most ``offset_range`` times
            the unit of the reference points, 1 / (Hk - 1) or 1 / Hk, and positions may leave the map.
        reference_points: See :func:`key_points`.

    Returns:
        Positions (B, g, Hk, Wk, 2), at least float32.
    """
    height, width = offsets.shape[-2:]
    offsets = at_least_float32(offsets).movedim(2, -1)  # (B, g, Hk, Wk, 2)
    points = key_points(height, width, reference_points, offsets)
    if offset_range < 0:
        return (points + offsets).clamp(-1, 1)
    units = offsets.new_tensor([_denominator(size, reference_points) for size in (height, width)])
    return points + offset_range * offsets.tanh() / units


def sample_features(x: Tensor, positions: Tensor) -> Tensor:
    """Interpolate a map bilinearly, with zeros outside; the channels of a group at the positions of the group.

    Args:
        x: (B, C, H, W).
        positions: (B, g, Hk, Wk, 2), at least float32; g divides C.

    Returns:
        (B, C, Hk, Wk), of the type of ``x``.
    """
    groups = x.unflatten(1, (positions.shape[1], -1)).flatten(0, 1)  # (B * g, C / g, H, W)
    grid = positions.flatten(0, 1).flip(-1)  # (B * g, Hk, Wk, 2), x and y
    sampled = F.grid_sample(groups.to(grid.dtype), grid, align_corners=True)
    return sampled.view(len(x), -1, *positions.shape[2:4]).to(x.dtype)


def _denominator(size: int, reference_points: ReferencePoints) -> int:
    return max(size - 1, 1) if reference_points == 'Hk - 1' else size
