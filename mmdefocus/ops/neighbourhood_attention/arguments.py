"""Checks of the arguments of neighbourhood attention."""

from torch import Tensor

from mmdefocus.ops.validation import check_rank, check_shape

MAP = '(batch, heads, height, width, channels)'
BIAS = '(heads, 2 * kernel_size - 1, 2 * kernel_size - 1)'


def check_arguments(op: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, kernel_size: int) -> None:
    """Raise ValueError for mismatched shapes, an even kernel and maps that are smaller than it."""
    check_rank(op, 'q', q, MAP)
    _, heads, height, width, channels = q.shape
    if heads == 0 or channels == 0:
        raise ValueError(f'{op}: expected at least one head of one channel, got q of shape {tuple(q.shape)}')
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'{op}: expected an odd kernel_size of at least 1, got {kernel_size}')
    if min(height, width) < kernel_size:
        raise ValueError(
            f'{op}: expected a map of at least kernel_size = {kernel_size} rows and columns, got {height} x {width}; '
            'pad it at the bottom and on the right, and crop the result'
        )
    check_shape(op, 'k', k, tuple(q.shape), MAP)
    check_shape(op, 'v', v, tuple(q.shape), MAP)
    side = 2 * kernel_size - 1
    check_shape(op, 'bias', bias, (heads, side, side), BIAS)
