"""Multi-scale deformable sampling in plain PyTorch: the specification of the operator.

Shapes: B batch, V positions of all maps, H heads, C channels of a head, Q queries, L maps, P samples per map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def deformable_sampling_reference(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Compute :func:`mmdefocus.ops.deformable_sampling` map by map.

    Args:
        value: (B, V, H, C), float32 or float64.
        shapes: (L, 2).
        locations: (B, Q, H, L, P, 2), of the same type.
        weights: (B, Q, H, L, P), of the same type.

    Returns:
        (B, Q, H, C).
    """
    batch, _, heads, channels = value.shape
    sides = [(int(height), int(width)) for height, width in shapes]
    total = value.new_zeros(batch, locations.shape[1], heads, channels)
    for index, features in enumerate(value.split([height * width for height, width in sides], dim=1)):
        maps = features.permute(0, 2, 3, 1).reshape(batch * heads, channels, *sides[index])
        grid = 2 * locations[:, :, :, index].transpose(1, 2).flatten(0, 1) - 1  # (B * H, Q, P, 2), from -1 to 1
        samples = F.grid_sample(maps, grid, align_corners=False)  # (B * H, C, Q, P)
        samples = samples.unflatten(0, (batch, heads))
        total = total + torch.einsum('bhcqp,bqhp->bqhc', samples, weights[:, :, :, index])
    return total
