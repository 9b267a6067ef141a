"""Specification of the selective scan: a loop over time.

Shapes: B batch, E channels, L time, N state, G groups of channels that share B and C.
"""

import torch
from torch import Tensor


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run the recurrence of Mamba (arXiv 2312.00752, eq. 2, with the Euler rule for B).

    ``h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t`` and ``y_t = sum over n of C_t h_t``.

    Args:
        u: Input, (B, E, L), float32 or float64.
        delta: Step sizes, (B, E, L).
        A: (E, N).
        B: (B, G, N, L), or (E, N) if constant in time.
        C: As B.
        initial_state: h_{-1}, (B, E, N); 0 by default.

    Returns:
        y (B, E, L) and the final state (B, E, N).
    """
    B, C = (_per_channel(projection, u) for projection in (B, C))
    state = u.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state  # (B, E, N)
    outputs = []
    # The backward pass of unbind is one stack; that of indexing would be a full tensor for every step.
    for x, step, B_t, C_t in zip(u.unbind(-1), delta.unbind(-1), B.unbind(-1), C.unbind(-1), strict=True):
        state = torch.exp(step[..., None] * A) * state + (step * x)[..., None] * B_t
        outputs.append((state * C_t).sum(-1))
    return torch.stack(outputs, dim=-1), state


def _per_channel(projection: Tensor, u: Tensor) -> Tensor:
    """Expand (B, G, N, L) or (E, N) to (B, E, N, L)."""
    if projection.dim() == 2:
        return projection[None, :, :, None].expand(u.shape[0], -1, -1, u.shape[2])
    return projection.repeat_interleave(u.shape[1] // projection.shape[1], dim=1)
