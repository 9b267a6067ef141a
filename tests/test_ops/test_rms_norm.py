import pytest
import torch
import torch.nn.functional as F
from tolerances import FORWARD, GRADIENT, HALF, assert_close

from mmdefocus.ops import rms_norm

EPS = 1e-5
DTYPES = (torch.float32, torch.float64)


def make(shape=(2, 5, 48), dtype=torch.float32):
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    return x, torch.rand(shape[-1], dtype=dtype).add(0.5).requires_grad_()


def formula(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def run(function, x, weight, grad_type=None):
    """Return the result and both gradients for an output gradient that ``grad_type`` can represent."""
    y = function(x, weight)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(grad_type or y.dtype)
    return [y, *torch.autograd.grad(y, (x, weight), grad_y.to(y.dtype))]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('backend', ('cpp', 'reference'))
@pytest.mark.parametrize('channels', (1, 2, 15, 16, 17, 48, 100, 768))
@pytest.mark.parametrize('rows', ((), (1,), (2, 65), (3, 2, 64)))
def test_equals_the_formula_in_float64(rows, channels, backend, dtype):
    arguments = make((*rows, channels), dtype)
    actual = run(lambda *a: rms_norm(*a, EPS, backend=backend), *arguments)
    expected = run(formula, *(tensor.detach().double().requires_grad_() for tensor in arguments))
    # A row of one channel has a gradient of 0 up to eps.
    assert_close(actual[0].double(), expected[0], FORWARD[dtype], 'y')
    for name, gradient, other in zip(('x', 'weight'), actual[1:], expected[1:], strict=True):
        scale = max(other.abs().max().item(), 1.0 if channels == 1 else 0.0)
        assert (gradient.double() - other).abs().max() <= GRADIENT[dtype] * scale, f'gradient of {name}'


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_half_types_round_once(dtype):
    x, weight = make((4, 100))
    half = x.detach().to(dtype).requires_grad_()
    actual = run(lambda *a: rms_norm(*a, EPS), half, weight)
    wide = (tensor.detach().double().requires_grad_() for tensor in (half, weight))
    expected = run(formula, *wide, grad_type=dtype)
    assert [tensor.dtype for tensor in actual] == [dtype, dtype, torch.float32]
    for name, tensor, other in zip(('y', 'gradient of x', 'gradient of weight'), actual, expected, strict=True):
        assert_close(tensor.double(), other, HALF[dtype], name)


@pytest.mark.parametrize('backend', ('cpp', 'reference'))
def test_the_result_has_the_type_that_is_asked_for(backend):
    x, weight = make()
    y = rms_norm(x, weight, EPS, torch.bfloat16, backend)
    assert y.dtype == torch.bfloat16
    assert_close(y, formula(x, weight).bfloat16(), 2**-7)
    y.sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_takes_strided_tensors():
    x = torch.randn(48, 5, 2).permute(2, 1, 0)
    weight = torch.rand(96)[::2]
    assert_close(rms_norm(x, weight, EPS), formula(x, weight), FORWARD[torch.float32])


def test_second_derivatives():
    arguments = make((3, 5), torch.float64)
    assert torch.autograd.gradgradcheck(lambda *a: rms_norm(*a, EPS, backend='cpp'), arguments)


def test_the_first_derivatives_under_create_graph_are_those_without():
    x, weight = make((3, 40), torch.float64)
    plain, differentiable = (
        torch.autograd.grad(rms_norm(x, weight, EPS).square().sum(), (x, weight), create_graph=create)
        for create in (False, True)
    )
    for gradient, other in zip(plain, differentiable, strict=True):
        torch.testing.assert_close(gradient, other)


def test_results_do_not_depend_on_the_threads():
    x, weight = make((2, 300, 48))
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(run(lambda *a: rms_norm(*a, EPS), x, weight))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_compiles_without_a_graph_break():
    x, weight = make()
    compiled = torch.compile(lambda *a: rms_norm(*a, EPS), fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x, weight), F.rms_norm(x, weight.shape, weight, EPS))


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_the_registration_is_complete(dtype):
    x, weight = make((2, 3, 20))
    torch.library.opcheck(torch.ops.mmdefocus.rms_norm.default, (x, weight, EPS, dtype))


def test_refuses_wrong_arguments():
    x, weight = make()
    with pytest.raises(ValueError, match=r'rms_norm: expected weight of shape \(channels\) = \(48,\), got \(47,\)'):
        rms_norm(x, weight[:47], EPS)
    with pytest.raises(ValueError, match='at least one channel'):
        rms_norm(x[..., :0], weight[:0], EPS)
    with pytest.raises(TypeError, match='float64 does not mix'):
        rms_norm(x.double(), weight, EPS)
    with pytest.raises(RuntimeError, match="backend 'cuda' does not have this operator"):
        rms_norm(x, weight, EPS, backend='cuda')
