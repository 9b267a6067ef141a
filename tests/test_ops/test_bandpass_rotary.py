"""The rotation of queries and keys: formula, precision on long sequences, gradients and registration."""

import pytest
import torch
from tolerances import FORWARD, assert_close

from mmdefocus.ops.bandpass.rotary import apply_rotary


def rotated_in_float64(x, freq, first):
    positions = torch.arange(first, first + x.shape[-2], dtype=torch.float64)[:, None]
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.exp(1j * freq.double()[:, None] * positions)).flatten(-2)


@pytest.mark.parametrize('dtype', (torch.float64, torch.float32))
@pytest.mark.parametrize(('length', 'first'), [(1, 0), (65, -64), (8192, 0), (8192, -8191)])
def test_formula_on_short_and_long_sequences(length, first, dtype):
    x, freq = torch.randn(2, 3, length, 8, dtype=dtype), torch.rand(3, 4, dtype=dtype) * 2 - 1
    tolerance = FORWARD[dtype] / 10  # phases in float32 would be off by 5e-4
    assert_close(apply_rotary(x, freq, first).double(), rotated_in_float64(x, freq, first), tolerance)


def test_no_frequency_returns_the_input():
    x = torch.randn(2, 3, 5, 8)
    assert apply_rotary(x, None) is x


@pytest.mark.parametrize('shape', [(2, 3, 7, 4), (2, 2, 3, 7, 4)])
def test_gradients(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    freq = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *arguments: apply_rotary(*arguments, -3), (x, freq))


@pytest.mark.parametrize('dtype', (torch.float64, torch.float32))
def test_opcheck(dtype):
    x = torch.randn(2, 3, 7, 4, dtype=dtype, requires_grad=True)
    freq = torch.rand(3, 2, dtype=dtype, requires_grad=True)
    torch.library.opcheck(torch.ops.mmdefocus.bandpass_rotary.default, (x, freq, 1))
