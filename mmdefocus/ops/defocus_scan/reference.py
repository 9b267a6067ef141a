"""Specification of the De-focus scan: a chain of plain PyTorch operations around any selective scan.

Shapes: B batch, L tokens, E channels, N state.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.selective_scan.reference import selective_scan_reference

from .rotary import learnable_rotary

# u, delta (B, E, L), A (E, N), B, C (B, 1, N, L), initial_state (B, E, N) or None → y (B, E, L), final state (B, E, N)
Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]


def defocus_scan_reference(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    freq: Tensor | None,
    positions: Tensor | None,
    initial_state: Tensor | None,
    delta_scale: float,
    group_size: int,
    eps: float,
    scan: Scan = selective_scan_reference,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`mmdefocus.ops.defocus_scan` step by step; all tensors float32, or all float64.

    Args:
        scan: Selective scan to use.
        u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state, delta_scale, group_size, eps: See there;
            ``freq`` needs ``positions``.

    Returns:
        y (B, L, E) and the final state (B, E, N).
    """
    delta = F.softplus(dt + dt_bias) / delta_scale  # (B, L, E)
    if freq is not None:
        assert positions is not None
        B, C = (learnable_rotary(x, positions, freq) for x in (B, C))
    B, C = (x.transpose(1, 2).unsqueeze(1) for x in (B, C))  # (B, 1, N, L)
    y, last_state = scan(u.transpose(1, 2), delta.transpose(1, 2), A, B, C, initial_state)
    groups = y.transpose(1, 2).unflatten(-1, (-1, group_size))  # (B, L, E / group_size, group_size)
    y = F.rms_norm(groups, (group_size,), eps=eps).flatten(-2)
    return (y + D * u) * F.silu(z), last_state
