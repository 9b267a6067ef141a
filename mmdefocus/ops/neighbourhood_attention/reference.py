"""Neighbourhood attention as dense attention with a mask: the specification of the other backends, for small maps.

Shapes: B batch, h heads, H and W rows and columns of the map, d channels of a head, K side of the neighbourhood.
"""

import torch
from torch import Tensor


def window_starts(length: int, kernel_size: int, device: torch.device | None = None) -> Tensor:
    """Return the first row of the neighbourhood of every row, (length,): the window shifts at borders."""
    rows = torch.arange(length, device=device)
    return (rows - kernel_size // 2).clamp(0, length - kernel_size)


def neighbourhood_attention_reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """Compute :func:`neighbourhood_attention` by dense attention; ``q`` includes the scale."""
    height, width = q.shape[2:4]
    rows, in_rows = _offsets(height, kernel_size, q.device)  # (H, H)
    columns, in_columns = _offsets(width, kernel_size, q.device)  # (W, W)
    logits = torch.einsum('bhijd,bhyxd->bhijyx', q, k)
    logits = logits + bias[:, rows[:, None, :, None], columns[None, :, None, :]]  # (B, h, H, W, H, W)
    inside = in_rows[:, None, :, None] & in_columns[None, :, None, :]  # (H, W, H, W)
    weights = logits.masked_fill(~inside, -torch.inf).flatten(-2).softmax(-1)  # (B, h, H, W, H * W)
    return weights @ v.flatten(2, 3)[:, :, None]


def _offsets(length: int, kernel_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the bias index of every (query, key) pair of an axis, and whether the key is in the window."""
    positions = torch.arange(length, device=device)
    start = window_starts(length, kernel_size, device)[:, None]
    inside = (positions >= start) & (positions < start + kernel_size)
    index = (positions[None, :] - positions[:, None] + kernel_size - 1).clamp(0, 2 * kernel_size - 2)
    return index, inside
