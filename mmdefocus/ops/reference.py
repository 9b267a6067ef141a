"""Plain-PyTorch operators: the specification that every backend is tested against.

Legend: B batch, E channels, L time, N state, G groups of channels that share B and C, K kernel width.
"""

import torch
from torch import Tensor


def selective_scan_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The selective scan as a loop over time (Mamba, arXiv 2312.00752, eq. 2 with the Euler rule for B).

    ``h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t`` and ``y_t = sum over n of C_t h_t``.

    Args:
        u: input, (B, E, L), float32 or float64.
        delta: step sizes, (B, E, L).
        A: (E, N).
        B: (B, G, N, L), or (E, N) when constant.
        C: as B.
        initial_state: h_{-1}, (B, E, N); 0 by default.

    Returns:
        y (B, E, L) and the state after the last step (B, E, N).
    """
    B, C = (_per_channel(projection, u) for projection in (B, C))
    state = u.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state  # (B, E, N)
    outputs = []
    # The gradient of unbind is one stack; that of indexing would be a full tensor for every step.
    for x, step, B_t, C_t in zip(u.unbind(-1), delta.unbind(-1), B.unbind(-1), C.unbind(-1), strict=True):
        state = torch.exp(step[..., None] * A) * state + (step * x)[..., None] * B_t
        outputs.append((state * C_t).sum(-1))
    return torch.stack(outputs, dim=-1), state


def _per_channel(projection: Tensor, u: Tensor) -> Tensor:
    """(B, G, N, L) or (E, N) to (B, E, N, L)."""
    if projection.dim() == 2:
        return projection[None, :, :, None].expand(u.shape[0], -1, -1, u.shape[2])
    return projection.repeat_interleave(u.shape[1] // projection.shape[1], dim=1)


def causal_conv1d_reference(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    """Depthwise causal convolution: ``y_t = bias + sum over k of weight_k x_{t - K + 1 + k}``, x zero before its start.

    Args:
        x: (B, E, L), float32 or float64.
        weight: (E, K).
        bias: (E), or None.
        silu: whether ``y sigmoid(y)`` follows.

    Returns:
        (B, E, L).
    """
    width, length = weight.shape[1], x.shape[2]
    padded = torch.nn.functional.pad(x, (width - 1, 0))
    y = x.new_zeros(()) if bias is None else bias[:, None]
    for k in range(width):
        y = y + weight[:, k, None] * padded[:, :, k : k + length]
    return y * torch.sigmoid(y) if silu else y
