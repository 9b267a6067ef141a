"""Depthwise causal convolution over tokens.

Legend: B batch, E channels, L time, K kernel width.
"""

import torch
from torch import Tensor

from mmdefocus.ops import triton_causal_conv1d
from mmdefocus.ops.backends import can_run_cpp, choose_backend, refuse_second_derivatives
from mmdefocus.ops.causal_conv1d_arguments import check_shapes
from mmdefocus.ops.kernel_limits import CUDA_LIMITS, TRITON_LIMITS
from mmdefocus.ops.reference import causal_conv1d_reference
from mmdefocus.ops.validation import compute_dtype


def _fake_forward(x, weight, bias, silu):
    return torch.empty_like(x)


def _fake_backward(grad_y, x, weight, bias, silu):
    grad_bias = weight.new_empty(0) if bias is None else torch.empty_like(bias)
    return torch.empty_like(x), torch.empty_like(weight, memory_format=torch.contiguous_format), grad_bias


def _save(ctx, inputs, output):
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad_y):
    x, weight, bias = ctx.saved_tensors
    backward = torch.ops.mmdefocus.causal_conv1d_backward
    grad_x, grad_weight, grad_bias = backward(grad_y, x, weight, bias, ctx.silu)
    return grad_x, grad_weight, None if bias is None else grad_bias, None


if can_run_cpp() is None:
    torch.library.register_fake('mmdefocus::causal_conv1d', _fake_forward)
    torch.library.register_fake('mmdefocus::causal_conv1d_backward', _fake_backward)
    torch.library.register_autograd('mmdefocus::causal_conv1d', _differentiate, setup_context=_save)
    refuse_second_derivatives('causal_conv1d')


def _causal_conv1d_compiled(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    return torch.ops.mmdefocus.causal_conv1d(x, weight, bias, silu)


def _causal_conv1d_reference(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    return causal_conv1d_reference(x.to(weight.dtype), weight, bias, silu).to(x.dtype)


def _causal_conv1d_triton(*arguments):
    return triton_causal_conv1d.convolve(*arguments)


_IMPLEMENTATIONS = {
    'cuda': _causal_conv1d_compiled,
    'triton': _causal_conv1d_triton,
    'cpp': _causal_conv1d_compiled,
    'reference': _causal_conv1d_reference,
}


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    backend: str | None = None,
) -> Tensor:
    """Depthwise causal convolution, with the arguments of causal-conv1d's ``causal_conv1d_fn``.

    ``y_t = activation(bias + sum over k of weight_k x_{t - K + 1 + k})`` per channel, x being zero before its start, so
    that y_t sees nothing later than x_t. Half types are converted on loading and storing; all between is float32. No
    copy is made of a transposed (B, L, E) tensor, and on a CPU of none; the result has the strides of ``x``.

    Args:
        x: (B, E, L), float16, bfloat16, float32 or float64.
        weight: (E, K), any width.
        bias: (E).
        activation: None, or 'silu' (also called 'swish').
        backend: a name of :func:`mmdefocus.ops.available_backends`; None chooses by the device and the type.

    Returns:
        (B, E, L), of the type of ``x``.

    Raises:
        TypeError: complex, integer or mixed float64 and other types.
        ValueError: shapes that do not fit, an empty sequence, tensors on several devices, an unknown activation or
            backend.
        RuntimeError: the named backend cannot run here.
    """
    op = 'causal_conv1d'
    compute = compute_dtype(op, {'x': x, 'weight': weight, 'bias': bias})
    if activation not in (None, 'silu', 'swish'):
        raise ValueError(f"{op}: expected activation None, 'silu' or 'swish', got {activation!r}")
    check_shapes(op, x, weight, bias)
    width = weight.shape[1]
    limits = {
        'cuda': CUDA_LIMITS.convolution_obstacle(width),
        'triton': TRITON_LIMITS.convolution_obstacle(width),
    }
    implementation = _IMPLEMENTATIONS[choose_backend(backend, x.device, x.dtype, _IMPLEMENTATIONS, limits)]
    return implementation(x, weight.to(compute), None if bias is None else bias.to(compute), activation is not None)
