"""Tests of the Triton kernels of neighbourhood attention, for a GPU and for Triton's interpreter on the CPU."""

import pytest
import torch
from test_neighbourhood_attention import assert_same, loop, make, run
from tolerances import FORWARD, GRADIENT, HALF, looser

from mmdefocus.ops import neighbourhood_attention
from mmdefocus.ops.neighbourhood_attention.registration import attend_triton


def make_on(device, *sizes, **options):
    return {name: tensor.detach().to(device).requires_grad_() for name, tensor in make(*sizes, **options).items()}


def run_exactly(arguments, **options):
    """Return the output and the gradients of the loop in float64, in the types of the arguments' own."""
    exact = {name: tensor.detach().cpu().double().requires_grad_() for name, tensor in arguments.items()}
    return run(exact, loop, **options)


def exactly(y, gradients):
    return y.cpu().double(), {name: gradient.cpu().double() for name, gradient in gradients.items()}


def check_half_type(device, dtype):
    arguments = make_on(device, 9, 10, 3, batch=1, heads=1, channels=16)
    for name in 'qkv':
        arguments[name] = arguments[name].detach().to(dtype).requires_grad_()
    y, gradients = run(arguments, backend='triton')
    assert y.dtype == dtype
    assert [gradient.dtype for gradient in gradients.values()] == [dtype, dtype, dtype, torch.float32]
    tolerance = looser(HALF[dtype], 'rounded operands')
    assert_same(exactly(y, gradients), run_exactly(arguments), tolerance, tolerance)


class NeighbourhoodAttentionCases:
    @pytest.mark.parametrize(
        ('height', 'width', 'kernel_size'), [(7, 7, 7), (9, 8, 7), (17, 9, 3), (3, 3, 3), (5, 6, 3), (4, 9, 1)]
    )
    def test_triton_is_exact_in_float32(self, device, height, width, kernel_size):
        arguments = make_on(device, height, width, kernel_size, batch=1, heads=1, channels=4)
        actual = exactly(*run(arguments, kernel_size=kernel_size, backend='triton'))
        expected = run_exactly(arguments, kernel_size=kernel_size)
        assert_same(actual, expected, FORWARD[torch.float32], GRADIENT[torch.float32])

    @pytest.mark.parametrize('channels', (1, 33, 300))
    def test_any_width(self, device, channels):
        arguments = make_on(device, 4, 9, 3, batch=1, heads=1, channels=channels)
        actual = exactly(*run(arguments, backend='triton'))
        assert_same(actual, run_exactly(arguments), FORWARD[torch.float32], GRADIENT[torch.float32])

    def test_images_and_heads(self, device):
        arguments = make_on(device, 4, 5, 3, batch=2, heads=3, channels=4)
        actual = exactly(*run(arguments, backend='triton'))
        assert_same(actual, run_exactly(arguments), FORWARD[torch.float32], GRADIENT[torch.float32])

    @pytest.mark.parametrize('dtype', HALF)
    def test_half_types(self, device, dtype):
        check_half_type(device, dtype)

    def test_strides_scale_and_no_bias(self, device):
        q, k, v = torch.randn(2, 5, 4, 3, 2, 4, device=device).permute(3, 0, 4, 1, 2, 5)
        y = neighbourhood_attention(q, k, v, None, 3, 0.3, backend='triton')
        expected = neighbourhood_attention(q.contiguous(), k.contiguous(), v.contiguous(), None, 3, 0.3)
        torch.testing.assert_close(y, expected)

    def test_excluded_offsets(self, device):
        """A bias of -inf, from the first key of the window on, excludes keys."""
        arguments = make_on(device, 5, 5, 3, batch=1, heads=1, channels=4)
        arguments['bias'].data[:, :2] = -torch.inf
        arguments['bias'].data[:, 2, 2] = 0  # a pixel sees itself
        actual = exactly(*run(arguments, backend='triton'))
        assert_same(actual, run_exactly(arguments), FORWARD[torch.float32], GRADIENT[torch.float32])

    def test_without_images(self, device):
        y, gradients = run(make_on(device, batch=0), backend='triton')
        assert y.shape == (0, 3, 9, 11, 5)
        assert not gradients['bias'].any()

    def test_opcheck(self, device):
        arguments = make_on(device, 4, 5, 3, batch=1, heads=2, channels=4)
        torch.library.opcheck(attend_triton, (*arguments.values(), 3, 0.5))

    def test_compiles_without_graph_break(self, device):
        arguments = make_on(device, 4, 4, 3, batch=1, heads=1, channels=4)

        def function(kernel_size, **tensors):
            return neighbourhood_attention(**tensors, kernel_size=3, backend='triton')

        compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
        assert_same(run(arguments, compiled), run(arguments, function), 1e-6, 1e-6)
