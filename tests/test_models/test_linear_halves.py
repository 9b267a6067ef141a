import pytest
import torch
import torch.nn.functional as F

from mmdefocus.models.linear_halves import linear_halves


def make(dtype=torch.float64, features=10, requires_grad=(True, True)):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, generator=generator, dtype=dtype).requires_grad_(requires_grad[0])
    weight = torch.randn(features, 4, generator=generator, dtype=dtype).requires_grad_(requires_grad[1])
    return x, weight


def expected_halves(x, weight):
    return F.linear(x, weight).chunk(2, dim=-1)


@pytest.mark.parametrize('requires_grad', [(True, True), (True, False), (False, True)])
def test_values_and_gradients_are_those_of_one_product(requires_grad):
    x, weight = make(requires_grad=requires_grad)
    wanted = [tensor for tensor in (x, weight) if tensor.requires_grad]
    halves = linear_halves(x, weight)
    expected = expected_halves(x, weight)
    factors = [torch.randn_like(half) for half in expected]
    torch.testing.assert_close(halves, expected)
    torch.testing.assert_close(
        torch.autograd.grad(halves, wanted, factors), torch.autograd.grad(expected, wanted, factors)
    )


def test_halves_and_the_gradient_of_the_weight_are_contiguous():
    x, weight = make()
    first, second = linear_halves(x, weight)
    (first.sum() + second.sum()).backward()
    assert first.is_contiguous()
    assert second.is_contiguous()
    assert weight.grad.is_contiguous()


def test_a_half_without_use_gets_no_gradient():
    x, weight = make()
    linear_halves(x, weight)[0].sum().backward()
    assert weight.grad[:5].any()
    assert not weight.grad[5:].any()


def test_second_derivatives():
    assert torch.autograd.gradgradcheck(linear_halves, make())


def test_autocast_gives_its_dtype_and_gradients_of_the_parameters_dtype():
    x, weight = make(torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        halves = linear_halves(x, weight)
        expected = expected_halves(x, weight)
    assert [half.dtype for half in halves] == [torch.bfloat16] * 2
    torch.testing.assert_close(halves, expected)
    (halves[0] * halves[1]).sum().backward()
    assert weight.grad.dtype == torch.float32


def test_compiled_code_gives_the_same():
    x, weight = make(torch.float32)
    compiled = torch.compile(linear_halves, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x, weight), linear_halves(x, weight))


def test_images_without_tokens_and_odd_leading_shapes():
    x, weight = make()
    for shape in ((0, 3, 4), (6, 4), (1, 2, 3, 4)):
        sample = torch.randn(shape, dtype=x.dtype)
        torch.testing.assert_close(linear_halves(sample, weight), expected_halves(sample, weight))
