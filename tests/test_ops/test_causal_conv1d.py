import pytest
import torch
import torch.nn.functional as F
from tolerances import FORWARD, GRADIENT, HALF, assert_close

from mmdefocus.ops import causal_conv1d

FLOATS = (torch.float32, torch.float64)


def make(batch=2, channels=40, length=70, width=4, dtype=torch.float32, bias=True):
    x = torch.randn(batch, channels, length, dtype=dtype, requires_grad=True)
    weight = torch.randn(channels, width, dtype=dtype, requires_grad=True)
    return [x, weight, torch.randn(channels, dtype=dtype, requires_grad=True) if bias else None]


def run(arguments, activation, backend):
    y = causal_conv1d(*arguments, activation=activation, backend=backend)
    grad_output = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    present = [tensor for tensor in arguments if tensor is not None]
    return [y, *torch.autograd.grad(y, present, grad_output)]


def assert_same(arguments, activation):
    dtype = arguments[0].dtype
    actual, expected = (run(arguments, activation, backend) for backend in ('cpp', 'reference'))
    assert_close(actual[0], expected[0], FORWARD[dtype], 'y')
    for name, gradient, other in zip(('x', 'weight', 'bias'), actual[1:], expected[1:], strict=False):
        assert_close(gradient, other, GRADIENT[dtype], f'gradient of {name}')


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('activation', (None, 'silu'))
@pytest.mark.parametrize('length', (1, 2, 3, 63, 64, 65, 66, 67, 145, 197, 577))
def test_cpp_equals_reference_at_every_length(length, activation, dtype):
    assert_same(make(length=length, dtype=dtype), activation)


@pytest.mark.parametrize('bias', (True, False))
@pytest.mark.parametrize('width', (1, 2, 3, 4, 7, 80))
@pytest.mark.parametrize('channels', (1, 17, 64))
def test_cpp_equals_reference_at_every_width(channels, width, bias):
    assert_same(make(channels=channels, width=width, bias=bias, dtype=torch.float64), 'silu')


@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_equals_a_grouped_convolution(backend):
    x, weight, bias = make(dtype=torch.float64)
    expected = F.silu(F.conv1d(F.pad(x, (3, 0)), weight[:, None], bias, groups=40))
    assert_close(causal_conv1d(x, weight, bias, 'swish', backend=backend), expected, FORWARD[torch.float64])


@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_gradcheck(backend):
    arguments = make(batch=2, channels=3, length=9, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *a: causal_conv1d(*a, activation='silu', backend=backend), arguments)


@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_is_causal(backend):
    arguments = make()
    y = causal_conv1d(*arguments, activation='silu', backend=backend)
    gradient = torch.autograd.grad(y[:, :, 65].sum(), arguments[0])[0]
    assert gradient[..., 66:].abs().max() == 0
    assert gradient[..., :62].abs().max() == 0
    assert (gradient[..., 62:66].abs().amax(dim=(0, 1)) > 0).all()


def test_strides_do_not_matter():
    arguments = make()
    transposed = [
        tensor.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for tensor in arguments
    ]
    for actual, expected in zip(run(transposed, 'silu', 'cpp'), run(arguments, 'silu', 'cpp'), strict=True):
        torch.testing.assert_close(actual, expected)
    channels_last = torch.randn(2, 70, 40).transpose(1, 2)
    assert causal_conv1d(channels_last, *arguments[1:], backend='cpp').stride() == channels_last.stride()


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_half_types_compute_in_float32(backend, dtype):
    x, weight, bias = make()
    half = x.detach().to(dtype).requires_grad_()
    exact = half.detach().float().requires_grad_()
    y = causal_conv1d(half, weight, bias, 'silu', backend=backend)
    expected = causal_conv1d(exact, weight, bias, 'silu', backend=backend)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    grad_output = torch.randn_like(y)
    gradients = torch.autograd.grad(y, (half, weight, bias), grad_output)
    expected_gradients = torch.autograd.grad(expected, (exact, weight, bias), grad_output.float())
    assert torch.equal(gradients[0], expected_gradients[0].to(dtype))
    for gradient, other in zip(gradients[1:], expected_gradients[1:], strict=True):
        assert gradient.dtype == torch.float32
        assert torch.equal(gradient, other)


@pytest.mark.parametrize('scale', (1.0, 1 / 3, -3.0, 2**-12))
@pytest.mark.parametrize('dtype', HALF)
def test_every_value_of_a_half_type_is_loaded_and_stored_exactly(dtype, scale):
    """Covers subnormal numbers, rounding to even, overflow, infinity and NaN."""
    x = torch.arange(2**16).to(torch.uint16).view(dtype).reshape(1, 64, -1)
    y = causal_conv1d(x, torch.full((64, 1), scale), backend='cpp')
    torch.testing.assert_close(y, (x.float() * scale).to(dtype), rtol=0, atol=0, equal_nan=True)


def test_nan_propagates():
    x, weight, bias = (tensor.detach() for tensor in make())
    x[0, 3, 10] = torch.nan
    y = causal_conv1d(x, weight, bias, 'silu', backend='cpp')
    assert y[0, 3, 10:14].isnan().all()
    assert y.isnan().sum() == 4


@pytest.mark.parametrize('bias', (True, False))
def test_opcheck(bias):
    arguments = make(bias=bias)
    torch.library.opcheck(torch.ops.mmdefocus.causal_conv1d.default, (*arguments, True))
    detached = [None if tensor is None else tensor.detach() for tensor in arguments]
    torch.library.opcheck(torch.ops.mmdefocus.causal_conv1d_backward.default, (torch.randn(2, 40, 70), *detached, True))


def test_compiles_without_graph_break():
    arguments = make(length=17)

    def function(x, weight, bias):
        return causal_conv1d(x, weight, bias, 'silu')

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    y, expected = compiled(*arguments), function(*arguments)
    torch.testing.assert_close(y, expected)
    for actual, other in zip(
        torch.autograd.grad(y.square().sum(), arguments),
        torch.autograd.grad(expected.square().sum(), arguments),
        strict=True,
    ):
        torch.testing.assert_close(actual, other)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({0: torch.zeros(40, 70)}, ValueError, r'expected x of shape \(batch, channels, length\), got \(40, 70\)'),
        ({0: torch.zeros(2, 40, 0)}, ValueError, r'at least one step, got x of shape \(2, 40, 0\)'),
        ({1: torch.zeros(40, 1, 4)}, ValueError, r'expected weight of shape \(channels, width\), got \(40, 1, 4\)'),
        ({1: torch.zeros(39, 4)}, ValueError, r'expected weight of shape .* = \(40, 4\), got \(39, 4\)'),
        ({1: torch.zeros(40, 0)}, ValueError, r'kernel of at least one step, got weight of shape \(40, 0\)'),
        ({2: torch.zeros(41)}, ValueError, r'expected bias of shape .* = \(40,\), got \(41,\)'),
        ({3: 'relu'}, ValueError, r"expected activation None, 'silu' or 'swish', got 'relu'"),
        ({0: torch.zeros(2, 40, 70, dtype=torch.int32)}, TypeError, r'expected x as float16, .* got torch.int32'),
        ({1: torch.zeros(40, 4, dtype=torch.float64)}, TypeError, r'x is torch.float32 but weight is torch.float64'),
        ({1: torch.zeros(40, 4, device='meta')}, ValueError, r'x is on cpu but weight is on meta'),
    ],
)
def test_wrong_arguments_raise(changes, error, message):
    arguments = [*make(), None]
    for index, value in changes.items():
        arguments[index] = value
    with pytest.raises(error, match=message):
        causal_conv1d(*arguments)


def test_double_backward_of_the_compiled_kernel_raises():
    x, weight, bias = make(length=5)
    y = causal_conv1d(x, weight, bias, 'silu', backend='cpp')
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r'causal_conv1d: only the reference supports double backward'):
        gradient.sum().backward()
