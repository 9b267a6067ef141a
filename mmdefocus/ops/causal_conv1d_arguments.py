"""Checks of the arguments that all implementations of the causal convolution share."""

from torch import Tensor

from mmdefocus.ops.validation import check_rank, check_shape


def check_shapes(op: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError unless x is (B, E, L), weight (E, K) and bias (E) or None, with L and K of at least 1."""
    check_rank(op, 'x', x, '(batch, channels, length)')
    check_rank(op, 'weight', weight, '(channels, width)')
    channels, width = x.shape[1], weight.shape[1]
    if x.shape[2] == 0:
        raise ValueError(f'{op}: expected a sequence of at least one step, got x of shape {tuple(x.shape)}')
    if width == 0:
        raise ValueError(f'{op}: expected a kernel of at least one step, got weight of shape {tuple(weight.shape)}')
    check_shape(op, 'weight', weight, (channels, width), '(channels, width)')
    check_shape(op, 'bias', bias, (channels,), '(channels)')
