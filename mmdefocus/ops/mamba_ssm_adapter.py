"""The compiled selective scan of the package mamba-ssm, where that is installed (extra ``mamba``).

Legend: B batch, E channels, L time, N state, G groups of channels that share B and C.
"""

import torch
from torch import Tensor

MAX_STATE = 256


def mamba_ssm_limit(state: int, last_state_needs_gradient: bool) -> str | None:
    """Why mamba-ssm cannot scan, or None.

    Args:
        state: N.
        last_state_needs_gradient: whether the last state is asked for while gradients are recorded.
    """
    if state > MAX_STATE:
        return f'its kernels take a state of up to {MAX_STATE}, got {state}'
    if last_state_needs_gradient:
        return 'its last state has no gradient; call it under torch.no_grad(), or without return_last_state'
    return None


def selective_scan_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """:func:`mmdefocus.ops.selective_scan` by mamba-ssm, which loads half types as they are and computes in float32.

    Args:
        u, delta, A, B, C, D, z, delta_bias, delta_softplus: See there. Of mixed types, activations take that of ``u``.

    Returns:
        y (B, E, L) of the type of ``u``, and the last state (B, E, N) in float32.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def activation(tensor):
        return None if tensor is None else tensor.to(u.dtype)

    def parameter(tensor):
        return None if tensor is None else tensor.to(torch.float32)

    B, C = (parameter(x) if x.dim() == 2 else activation(x) for x in (B, C))
    tensors = (u, activation(delta), parameter(A), B, C, parameter(D), activation(z), parameter(delta_bias))
    return selective_scan_fn(*tensors, delta_softplus=delta_softplus, return_last_state=True)
