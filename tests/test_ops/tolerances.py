"""Tolerances of the operator tests: the largest error relative to the largest value of the expected tensor."""

import torch

FORWARD = {torch.float64: 1e-9, torch.float32: 1e-5}
GRADIENT = {torch.float64: 1e-9, torch.float32: 1e-5}
# One rounding of the result to a half type; all else is computed in float32.
HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str = 'result') -> None:
    assert actual.shape == expected.shape, f'{name}: {tuple(actual.shape)} instead of {tuple(expected.shape)}'
    assert actual.dtype == expected.dtype, f'{name}: {actual.dtype} instead of {expected.dtype}'
    assert torch.isfinite(expected).all(), f'{name}: the expected values are not finite'
    error = (actual - expected).abs().max().item()
    scale = expected.abs().max().item()
    assert error <= tolerance * scale, f'{name}: error {error:.3g} at scale {scale:.3g}, tolerance {tolerance:.1g}'
