"""Depthwise causal convolution over tokens.

Shapes: B batch, E channels, L time, K kernel width.
"""

import torch
from torch import Tensor

from mmdefocus.ops.backends import choose_backend
from mmdefocus.ops.kernel_limits import CUDA_LIMITS, TRITON_LIMITS
from mmdefocus.ops.validation import compute_dtype

from .reference import causal_conv1d_reference
from .registration import causal_conv1d_triton, check_shapes


def _compiled(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    return torch.ops.mmdefocus.causal_conv1d(x, weight, bias, silu)


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    return causal_conv1d_triton(x, weight, weight.new_zeros(weight.shape[0]) if bias is None else bias, silu)


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    return causal_conv1d_reference(x.to(weight.dtype), weight, bias, silu).to(x.dtype)


_IMPLEMENTATIONS = {'cuda': _compiled, 'triton': _triton, 'cpp': _compiled, 'reference': _reference}


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve every channel causally, with the arguments of causal-conv1d's ``causal_conv1d_fn``.

    ``y_t = activation(bias + sum over k of weight_k x_{t - K + 1 + k})`` per channel, with x zero before its start, so
    that y_t depends on no later x. Half types are converted on load and store; arithmetic is float32. A transposed
    (B, L, E) tensor is not copied, and on a CPU no tensor is; the result has the strides of ``x``.

    Args:
        x: Input, (B, E, L), float16, bfloat16, float32 or float64.
        weight: Kernel of every channel, (E, K), any width.
        bias: (E).
        activation: None, or 'silu' (also called 'swish').
        backend: A name in :func:`mmdefocus.ops.available_backends`; None chooses by device and type.

    Returns:
        (B, E, L), of the type of ``x``.

    Raises:
        TypeError: Complex, integer or mixed float64 and other types.
        ValueError: Mismatched shapes, an empty sequence, tensors on different devices, an unknown activation or
            backend.
        RuntimeError: The named backend cannot run here.
    """
    op = 'causal_conv1d'
    compute = compute_dtype(op, {'x': x, 'weight': weight, 'bias': bias})
    if activation not in (None, 'silu', 'swish'):
        raise ValueError(f"{op}: expected activation None, 'silu' or 'swish', got {activation!r}")
    check_shapes(op, x, weight, bias)
    width = weight.shape[1]
    unsupported = {
        'cuda': CUDA_LIMITS.unsupported_convolution(width),
        'triton': TRITON_LIMITS.unsupported_convolution(width),
    }
    implementation = _IMPLEMENTATIONS[choose_backend(backend, x.device, x.dtype, _IMPLEMENTATIONS, unsupported)]
    return implementation(x, weight.to(compute), None if bias is None else bias.to(compute), activation is not None)
