"""Tests of the Triton kernels of band-pass attention, for a GPU and for Triton's interpreter on the CPU."""

import pytest
import torch
from test_bandpass_attention import make, run
from tolerances import FORWARD, GRADIENT, HALF, assert_close, looser

from mmdefocus.ops import bandpass_attention


def make_on(device, **sizes):
    return {name: tensor.detach().to(device).requires_grad_() for name, tensor in make(**sizes).items()}


def check_half_type(device, dtype):
    arguments = make_on(device, batch=1, heads=2, length=70, channels=32, values=16)
    arguments = {
        name: tensor.detach().to(dtype if name in 'qkv' else torch.float32).requires_grad_()
        for name, tensor in arguments.items()
    }
    y, gradients = run(arguments, backend='triton')
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
    expected, expected_gradients = run(exact)
    assert_close(y.double(), expected, looser(HALF[dtype], 'rounded operands'))
    for name, gradient in gradients.items():
        assert gradient.dtype == arguments[name].dtype
        tolerance = looser(HALF[dtype], 'rounded products')
        assert_close(gradient.double(), expected_gradients[name], tolerance, f'gradient of {name}')


class BandpassAttentionCases:
    @pytest.mark.parametrize('causal', (True, False))
    @pytest.mark.parametrize('length', (1, 2, 63, 64, 65, 197))
    def test_triton_is_exact_in_float32(self, device, length, causal):
        arguments = make_on(device, batch=1, heads=2, length=length)
        y, gradients = run(arguments, causal=causal, backend='triton')
        exact = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
        expected, expected_gradients = run(exact, causal=causal, backend='reference')
        assert_close(y.double(), expected, FORWARD[torch.float32])
        for name, gradient in gradients.items():
            if expected_gradients[name].any():
                rows = ('filter',) if name in ('decay', 'freq') else ()
                tolerance = looser(GRADIENT[torch.float32], *rows)
                assert_close(gradient.double(), expected_gradients[name], tolerance, f'gradient of {name}')
            else:  # a single token attends only to itself, whatever its logit
                assert gradient.abs().max() <= GRADIENT[torch.float32], f'gradient of {name}'

    @pytest.mark.parametrize(('channels', 'values'), [(2, 1), (32, 16), (40, 33)])
    def test_any_width(self, device, channels, values):
        arguments = make_on(device, batch=2, heads=3, length=70, channels=channels, values=values)
        y, gradients = run(arguments, backend='triton')
        expected, expected_gradients = run(arguments)
        assert_close(y, expected, FORWARD[torch.float32])
        for name, gradient in gradients.items():
            rows = ('filter',) if name in ('decay', 'freq') else ()
            tolerance = looser(GRADIENT[torch.float32], *rows)
            assert_close(gradient, expected_gradients[name], tolerance, f'gradient of {name}')

    def test_float16(self, device):
        check_half_type(device, torch.float16)

    @pytest.mark.parametrize('decay', (0.0, 1e4, float('inf')))
    def test_extreme_decay(self, device, decay):
        arguments = make_on(device, batch=1, heads=2, length=130)
        arguments['decay'].data.fill_(decay)
        y, gradients = run(arguments, backend='triton')
        expected, expected_gradients = run(arguments)
        assert_close(y, expected, FORWARD[torch.float32])
        for name, gradient in gradients.items():
            assert gradient.isfinite().all(), name
            if name in 'qkv':
                assert_close(gradient, expected_gradients[name], GRADIENT[torch.float32], f'gradient of {name}')

    def test_causality(self, device):
        arguments = make_on(device, batch=1, heads=2, length=140)
        y = bandpass_attention(**arguments, backend='triton')
        for gradient in torch.autograd.grad(y[:, :, 100].square().sum(), [arguments['k'], arguments['v']]):
            assert not gradient[:, :, 101:].any()
            assert (gradient[:, :, :101].abs().amax((0, 1, 3)) > 0).all()

    def test_compiles_without_graph_break(self, device):
        arguments = make_on(device, batch=1, heads=1, length=9)

        def function(q, k, v, decay, freq):
            return bandpass_attention(q, k, v, decay, freq, backend='triton')

        inputs = list(arguments.values())
        y = torch.compile(function, fullgraph=True, backend='aot_eager')(*inputs)
        for actual, other in zip(
            torch.autograd.grad(y.square().sum(), inputs),
            torch.autograd.grad(function(*inputs).square().sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(actual, other)
