"""Tests of the Triton kernels of the causal convolution in Triton's interpreter; `test_triton.py` runs this file.

`gpu/test_causal_conv1d_triton.py` runs the cases of the CUDA kernels with the Triton kernels on a GPU.
"""

import math

import numpy as np
import pytest
import torch
from cuda_cases import run_conv
from test_causal_conv1d import make
from tolerances import FORWARD, GRADIENT, HALF, assert_close
from torch.utils.flop_counter import FlopCounterMode

from mmdefocus.ops import causal_conv1d
from mmdefocus.ops.kernel_limits import TRITON_LIMITS

FLOAT = torch.float32


def assert_same(arguments, activation='silu'):
    actual, expected = (run_conv(arguments, activation, backend) for backend in ('triton', 'reference'))
    assert_close(actual[0], expected[0], FORWARD[FLOAT], 'y')
    for name, gradient, other in zip(('x', 'weight', 'bias'), actual[1:], expected[1:], strict=False):
        assert_close(gradient, other, GRADIENT[FLOAT], f'gradient of {name}')


@pytest.mark.parametrize('activation', (None, 'silu'))
@pytest.mark.parametrize('length', (1, 2, 3, 31, 32, 33, 64, 67))
def test_every_length(length, activation):
    assert_same(make(batch=1, channels=5, length=length), activation)


@pytest.mark.parametrize(
    ('channels', 'width', 'bias'), [(1, 1, True), (65, 2, False), (70, 3, True), (64, TRITON_LIMITS.max_width, False)]
)
def test_every_width(channels, width, bias):
    assert_same(make(channels=channels, width=width, length=35, bias=bias))


@pytest.mark.parametrize('offset', (0, 3))
def test_channels_last_and_slices(offset):
    """The result keeps the memory order of the argument, which is a slice surrounded by NaN."""
    x, weight, bias = make(length=35)
    expected = run_conv([x, weight, bias], 'silu', 'triton')
    wide = torch.full((2, 35, 56), math.nan)
    wide[..., offset : offset + 40] = x.detach().transpose(1, 2)
    rows = wide[..., offset : offset + 40].transpose(1, 2).requires_grad_()
    actual = run_conv([rows, weight, bias], 'silu', 'triton')
    assert actual[0].stride() == actual[1].stride() == (35 * 40, 1, 40)
    assert expected[0].stride() == x.stride()
    for result, other in zip(actual, expected, strict=True):
        assert torch.equal(result, other)


def test_any_strides_and_expanded_gradients():
    arguments = make(length=5)
    permuted = [x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for x in arguments]
    for actual, expected in zip(run_conv(permuted, None, 'triton'), run_conv(arguments, None, 'triton'), strict=True):
        assert torch.equal(actual, expected)
    y = causal_conv1d(*arguments, activation='silu', backend='triton')
    (gradient,) = torch.autograd.grad(y.sum(), arguments[0], retain_graph=True)
    assert torch.equal(gradient, torch.autograd.grad(y, arguments[0], torch.ones_like(y))[0])


@pytest.mark.parametrize('apart', (2**30 + 64, 2**31 + 64))
@pytest.mark.parametrize('dimension', (0, 1, 2))
def test_offsets_beyond_32_bits(dimension, apart):
    """Strides of 32 bits and of more between three sequences, channels or tokens, in memory that is hardly touched."""
    sizes, strides = [1, 1, 1], [4 * apart, 8, 1]
    sizes[dimension], strides[dimension] = 3, apart
    x, weight, bias = make(*sizes)
    memory = torch.from_numpy(np.empty(2 * apart + 4096, dtype=np.float16))
    half = x.detach().half()
    far = memory.as_strided(half.shape, strides).copy_(half)
    expected = causal_conv1d(half, weight, bias, 'silu', backend='triton')
    assert torch.equal(causal_conv1d(far, weight, bias, 'silu', backend='triton'), expected)


@pytest.mark.parametrize('dtype', HALF)
def test_half_types_compute_in_float32(dtype):
    x, weight, bias = make(length=35)
    half = x.detach().to(dtype).requires_grad_()
    exact = half.detach().float().requires_grad_()
    y = causal_conv1d(half, weight, bias, 'silu', backend='triton')
    expected = causal_conv1d(exact, weight, bias, 'silu', backend='reference')
    grad_output = torch.randn(y.shape).to(dtype)
    gradients = torch.autograd.grad(y, (half, weight, bias), grad_output)
    expected_gradients = torch.autograd.grad(expected, (exact, weight, bias), grad_output.float())
    for name, gradient, other in zip(('weight', 'bias'), gradients[1:], expected_gradients[1:], strict=True):
        assert_close(gradient, other, GRADIENT[FLOAT], f'gradient of {name}')
    assert y.dtype == gradients[0].dtype == dtype
    if dtype == torch.float16:  # the interpreter truncates to bfloat16 where a GPU rounds
        assert_close(y.float(), expected, HALF[dtype], 'y')
        assert_close(gradients[0].float(), expected_gradients[0], HALF[dtype], 'gradient of x')


def test_is_causal():
    arguments = make(length=40)
    y = causal_conv1d(*arguments, activation='silu', backend='triton')
    gradient = torch.autograd.grad(y[:, :, 33].sum(), arguments[0])[0]
    assert gradient[..., 34:].abs().max() == 0
    assert gradient[..., :30].abs().max() == 0
    assert (gradient[..., 30:34].abs().amax(dim=(0, 1)) > 0).all()


def test_nan_passes_through():
    x, weight, bias = (tensor.detach() for tensor in make(length=40))
    x[0, 3, 10] = math.nan
    y = causal_conv1d(x, weight, bias, 'silu', backend='triton')
    assert y[0, 3, 10:14].isnan().all()
    assert y.isnan().sum() == 4


def test_no_sequence_in_the_batch():
    x, weight, bias = make(batch=0, length=5)
    y, *gradients = run_conv([x, weight, bias], 'silu', 'triton')
    assert y.shape == (0, 40, 5)
    assert torch.equal(gradients[1], torch.zeros_like(weight))
    assert torch.equal(gradients[2], torch.zeros_like(bias))


@pytest.mark.parametrize('channels_last', (False, True))
def test_opcheck(channels_last):
    x, weight, bias = make(channels=3, length=4)
    if channels_last:
        x = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    torch.library.opcheck(torch.ops.mmdefocus.causal_conv1d_triton.default, (x, weight, bias, True))
    x, weight, bias = (tensor.detach() for tensor in (x, weight, bias))
    backward = torch.ops.mmdefocus.causal_conv1d_triton_backward.default
    torch.library.opcheck(backward, (torch.randn(2, 3, 4), x, weight, bias, True))


def test_flops_are_counted():
    x, weight, bias = make(channels=3, length=4)
    with FlopCounterMode(display=False) as counter:
        y = causal_conv1d(x, weight, bias, 'silu', backend='triton')
        torch.autograd.grad(y.sum(), x)
    assert counter.get_total_flops() == 6 * x.numel() * 4


def test_compiles_without_graph_break():
    arguments = make(channels=3, length=4)

    def function(x, weight, bias):
        return causal_conv1d(x, weight, bias, 'silu', backend='triton')

    y = torch.compile(function, fullgraph=True, backend='aot_eager')(*arguments)
    expected = torch.autograd.grad(function(*arguments).square().sum(), arguments)
    for gradient, other in zip(torch.autograd.grad(y.square().sum(), arguments), expected, strict=True):
        torch.testing.assert_close(gradient, other)


def test_double_backward_are_refused():
    x, weight, bias = make(length=3)
    y = causal_conv1d(x, weight, bias, 'silu', backend='triton')
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='causal_conv1d_triton: only the reference supports double backward'):
        gradient.sum().backward()


def test_wider_kernels_are_refused():
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run: its kernels take a width of up to 4, got 5"):
        causal_conv1d(*make(width=5), backend='triton')
