"""Root-mean-square norm over the last dimension.

Shapes: C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.backends import choose_backend
from mmdefocus.ops.validation import check_shape, compute_dtype

from . import registration  # noqa: F401 - registers the operator


def _compiled(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return torch.ops.mmdefocus.rms_norm(x.contiguous(), weight, eps, dtype)[0]


def _torch(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(dtype)


_IMPLEMENTATIONS = {'cpp': _compiled, 'reference': _torch}


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype | None = None, backend: str | None = None
) -> Tensor:
    """Compute ``x / sqrt(mean of x² + eps) · weight`` over the last dimension.

    Half types are converted on load and store; arithmetic is float32, whatever autocast says.

    Args:
        x: (…, C), float16, bfloat16, float32 or float64.
        weight: (C).
        eps: Added to the mean square.
        dtype: Type of the result, a floating one; by default that of ``x``.
        backend: 'cpp' for the CPU kernel, 'reference' for torch's own norm. None: the kernel on a CPU, torch's norm on
            other devices and in ``torch.compile``, which fuses it with its neighbours.

    Returns:
        (…, C) of ``dtype``.

    Raises:
        TypeError: Complex, integer or mixed float64 and other types.
        ValueError: A weight of another shape, no channels, tensors on different devices, an unknown backend.
        RuntimeError: The named backend cannot run here.
    """
    op = 'rms_norm'
    compute = compute_dtype(op, {'x': x, 'weight': weight})
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f'{op}: expected x of shape (..., channels) with at least one channel, got {tuple(x.shape)}')
    check_shape(op, 'weight', weight, x.shape[-1:], '(channels)')
    if backend is None and torch.compiler.is_compiling():
        backend = 'reference'
    implementation = _IMPLEMENTATIONS[choose_backend(backend, x.device, x.dtype, _IMPLEMENTATIONS)]
    return implementation(x, weight.to(compute), eps, x.dtype if dtype is None else dtype)
