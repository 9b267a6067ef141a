"""Neighbourhood attention.

Shapes: B batch, h heads, H and W rows and columns of the map, d channels of a head, K side of the neighbourhood.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from mmdefocus.ops.backends import can_run_triton, requested_backend
from mmdefocus.ops.validation import compute_dtype

from .arguments import check_arguments
from .reference import neighbourhood_attention_reference
from .registration import attend, attend_triton


def neighbourhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attend to K × K pixels around each pixel (Hassani et al., arXiv 2204.07143; block type N of arXiv 2309.01430).

    The query in row i attends to the rows s(i) … s(i) + K - 1 with s(i) = clamp(i - K // 2, 0, H - K), and so for
    columns: at borders the window shifts, so every query has exactly K² keys::

        logit(i, j; y, x) = scale · q_ij · k_yx + bias[y - i + K - 1, x - j + K - 1]
        out_ij = sum over (y, x) in the window of softmax(logit(i, j; ·))_yx v_yx

    Memory grows linearly with H W, in the backward pass, too. Half types compute in float32, whatever autocast says.

    Args:
        q, k, v: (B, h, H, W, d), H and W at least K; float16, bfloat16, float32 or float64.
        bias: (h, 2K - 1, 2K - 1), None for none.
        kernel_size: K, odd.
        scale: 1 / sqrt(d) by default.
        backend: 'reference' for dense attention with a mask, which defines the result; 'triton' for GPU kernels. None:
            the backend that ``MMDEFOCUS_BACKEND`` names, if it is one of these; else Triton on GPUs where it can run,
            or tiles of queries in plain PyTorch.

    Returns:
        (B, h, H, W, d), of the type of ``q``.

    Raises:
        TypeError: Complex, integer or mixed float64 and other types.
        ValueError: Mismatched shapes, a map smaller than the neighbourhood, an even K, no heads or channels, tensors on
            different devices, an unknown backend.
        RuntimeError: The named backend does not have the operator, or cannot run here.
    """
    op = 'neighbourhood_attention'
    compute = compute_dtype(op, {'q': q, 'k': k, 'v': v, 'bias': bias})
    check_arguments(op, q, k, v, bias, kernel_size)
    backend = requested_backend(backend, q.device, compute, implemented=('triton', 'reference'))
    if backend is None and q.is_cuda and can_run_triton(q.device, compute) is None:
        backend = 'triton'
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    # Autocast would move the products back into half types; the meta device has no autocast to switch off.
    with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):
        side = 2 * kernel_size - 1
        table = q.new_zeros(q.shape[1], side, side, dtype=compute) if bias is None else bias.to(compute)
        if backend == 'triton':
            return attend_triton(q, k, v, table, kernel_size, scale)[0]
        query, key, value = (x.to(compute) for x in (q, k, v))
        if backend == 'reference':
            return neighbourhood_attention_reference(query * scale, key, value, table, kernel_size).to(q.dtype)
        return attend(query, key, value, table, kernel_size, scale).to(q.dtype)
