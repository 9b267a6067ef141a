"""Selective scan of Mamba: the recurrence of the De-focus Mamba mixer.

Shapes: B batch, E channels, L time, N state, G groups of channels that share B and C.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.backends import choose_backend
from mmdefocus.ops.validation import compute_dtype

from .mamba_ssm import mamba_ssm_unsupported, selective_scan_mamba_ssm
from .reference import selective_scan_reference
from .registration import check_shapes, cpp_unsupported


def _selective_scan_cpp(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    y, last_state, _ = torch.ops.mmdefocus.selective_scan(u, delta, A, B.squeeze(1), C.squeeze(1))
    return y, last_state


def _scan_with(
    scan: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
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
    """Compose the whole operator from ``scan`` and plain PyTorch operations around it."""
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    # Autocast would move the products below back into half types; the meta device has none to switch off.
    with nullcontext() if u.is_meta else torch.autocast(u.device.type, enabled=False):
        x, step, A, B, C = (tensor.to(compute) for tensor in (u, delta, A, B, C))
        if delta_bias is not None:
            step = step + delta_bias.to(compute)[:, None]
        if delta_softplus:
            step = F.softplus(step)
        B, C = (projection.unsqueeze(1) if projection.dim() == 3 else projection for projection in (B, C))
        y, last_state = scan(x, step, A, B, C)
        if D is not None:
            y = y + D.to(compute)[:, None] * x
        if z is not None:
            y = y * F.silu(z.to(compute))
    return y.to(u.dtype), last_state


_IMPLEMENTATIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    'mamba_ssm': selective_scan_mamba_ssm,
    'cpp': partial(_scan_with, _selective_scan_cpp),
    'reference': partial(_scan_with, selective_scan_reference),
}


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    return_last_state: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    *,
    return_last_state: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective scan of Mamba (arXiv 2312.00752, section 3), with the arguments of ``selective_scan_fn``.

    For every channel, from ``h_{-1} = 0``::

        delta = softplus(delta + delta_bias)            (bias and softplus only if requested)
        h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t
        y_t = sum over n of C_t h_t  +  D u_t
        y   = y silu(z)                                 (if z is given)

    Half types compute in float32, whatever autocast says; float64 computes in float64. Tensors may have any strides: a
    transposed (B, L, E) view is not copied, and the result has the strides of ``u``. NaN propagates to all later
    steps of its channel.

    Args:
        u: Input, (B, E, L), float16, bfloat16, float32 or float64.
        delta: Step sizes, (B, E, L).
        A: (E, N), real; negative for a decaying state.
        B: (B, N, L) or (B, G, N, L) where G divides E; or (E, N), constant in time. The C++ kernels take one group
            that varies in time; other projections use ``mamba_ssm`` or the reference.
        C: As B; one of the two may be constant and the other not.
        D: Weight of the skip connection, (E).
        z: Gate, (B, E, L).
        delta_bias: Bias of ``delta``, (E).
        delta_softplus: Whether to apply softplus to ``delta``.
        return_last_state: Whether to return the final state, too. It is differentiable, except with ``mamba_ssm``,
            which refuses to return it while autograd records.
        backend: A name in :func:`mmdefocus.ops.available_backends`; None chooses by device and type.

    Returns:
        y (B, E, L) of the type of ``u``; with ``return_last_state``, also the final state (B, E, N) in float32
        (float64 for float64 inputs).

    Raises:
        TypeError: Complex, integer or mixed float64 and other types.
        ValueError: Mismatched shapes, an empty sequence or state, tensors on different devices, an unknown backend.
        RuntimeError: The named backend cannot run here.
    """
    op = 'selective_scan'
    arguments = (u, delta, A, B, C, D, z, delta_bias)
    compute_dtype(op, dict(zip(('u', 'delta', 'A', 'B', 'C', 'D', 'z', 'delta_bias'), arguments, strict=True)))
    check_shapes(op, *arguments)
    recorded = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in arguments)
    unsupported = {
        'mamba_ssm': mamba_ssm_unsupported(A.shape[1], return_last_state and recorded),
        'cpp': cpp_unsupported(B, C),
    }
    implementation = _IMPLEMENTATIONS[choose_backend(backend, u.device, u.dtype, _IMPLEMENTATIONS, unsupported)]
    y, last_state = implementation(*arguments, delta_softplus)
    return (y, last_state) if return_last_state else y
