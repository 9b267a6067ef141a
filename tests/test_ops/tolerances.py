"""Tolerances of the operator tests: largest error relative to the largest value of the expected tensor."""

from typing import NamedTuple

import torch

FORWARD = {torch.float64: 1e-9, torch.float32: 1e-5}
GRADIENT = {torch.float64: 1e-9, torch.float32: 1e-5}
# One rounding of the result to a half type; everything before it is computed in float32.
HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


class Looser(NamedTuple):
    """A multiple of the tolerances above, and the reason why the tolerance itself is too strict."""

    factor: int
    reason: str


LOOSER = {
    'filter': Looser(4, 'gradients of decay and frequency are sums of B L² / 2 terms of either sign'),
    'narrow norm': Looser(4, 'norms of one channel, or of one or two states, cancel most of the gradient'),
    'hundreds of tokens': Looser(4, 'float32 phases of hundreds of radians are off by 1e-5 in both computations'),
    'thousands of tokens': Looser(10, 'float32 phases of thousands of radians are off by 1e-4'),
    'rounded operands': Looser(4, 'the operands of the products or the output gradients are rounded to the half type'),
    'rounded products': Looser(8, 'gradients consist of two such products in sequence'),
}


def looser(tolerance: float, *names: str) -> float:
    """Return the tolerance times the factors of the named rows of ``LOOSER``."""
    for name in names:
        tolerance *= LOOSER[name].factor
    return tolerance


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str = 'result') -> None:
    assert actual.shape == expected.shape, f'{name}: {tuple(actual.shape)} instead of {tuple(expected.shape)}'
    assert actual.dtype == expected.dtype, f'{name}: {actual.dtype} instead of {expected.dtype}'
    assert torch.isfinite(expected).all(), f'{name}: the expected values are not finite'
    error = (actual - expected).abs().max().item()
    scale = expected.abs().max().item()
    assert error <= tolerance * scale, f'{name}: error {error:.3g} at scale {scale:.3g}, tolerance {tolerance:.1g}'
