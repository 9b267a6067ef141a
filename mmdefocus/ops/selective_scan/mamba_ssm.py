"""Backend ``mamba_ssm`` of the selective scan: the compiled scan of the package mamba-ssm (extra ``mamba``).

Shapes: B batch, E channels, L time, N state, G groups of channels that share B and C.
"""

import torch
from torch import Tensor

MAX_STATE = 256


def mamba_ssm_unsupported(state: int, last_state_needs_gradient: bool) -> str | None:
    """Return the reason if mamba-ssm does not support a scan, else None.

    Args:
        state: N.
        last_state_needs_gradient: Whether the call returns the final state while autograd records.
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
    """Compute :func:`mmdefocus.ops.selective_scan` by mamba-ssm, which loads half types and computes in float32.

    Args:
        u, delta, A, B, C, D, z, delta_bias, delta_softplus: See there. Activations of mixed types are converted to
            the type of ``u``.

    Returns:
        y (B, E, L) of the type of ``u``, and the final state (B, E, N) in float32.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def activation(tensor):
        return None if tensor is None else tensor.to(u.dtype)

    def parameter(tensor):
        return None if tensor is None else tensor.to(torch.float32)

    B, C = (parameter(x) if x.dim() == 2 else activation(x) for x in (B, C))
    tensors = (u, activation(delta), parameter(A), B, C, parameter(D), activation(z), parameter(delta_bias))
    return selective_scan_fn(*tensors, delta_softplus=delta_softplus, return_last_state=True)
