"""Test cases of the GPU kernels, for `gpu/` and for the emulated CUDA kernels in `test_cuda_emulated.py`.

A module that inherits from these classes has a fixture `device`, and sets `backend` if it is not CUDA. Expected values
come from the reference on the CPU.
"""

import math

import pytest
import torch
from test_causal_conv1d import make as make_conv_arguments
from test_defocus_scan import ACTIVATIONS, NAMES, OPTIONS
from test_defocus_scan import make as make_scan_arguments
from tolerances import FORWARD, GRADIENT, HALF, assert_close, looser

from mmdefocus.ops import causal_conv1d, defocus_scan
from mmdefocus.ops.kernel_limits import CUDA_LIMITS

FLOAT = torch.float32


def put(arguments, device, dtype=None):
    """Return fresh leaves on a device, converted to `dtype` if one is given."""
    return {
        name: None if value is None else value.detach().to(device, dtype).requires_grad_(value.requires_grad)
        for name, value in arguments.items()
    }


def run_scan(arguments, backend, **options):
    """Return the outputs and all gradients of the scan; the gradients of the outputs are the same at every call."""
    y, state = defocus_scan(**arguments, **{**OPTIONS, **options}, return_last_state=True, backend=backend)
    generator = torch.Generator().manual_seed(1)
    grad_outputs = [torch.randn(out.shape, generator=generator).to(out) for out in (y, state)]
    names = [name for name in NAMES if arguments.get(name) is not None]
    gradients = torch.autograd.grad([y, state], [arguments[name] for name in names], grad_outputs)
    return {'y': y, 'last_state': state, **{f'gradient of {n}': g for n, g in zip(names, gradients, strict=True)}}


def assert_equals_reference(arguments, device, backend, *rows, **options):
    """Compare each result with the reference in float64; `rows` name looser tolerances of the table."""
    actual = run_scan(put(arguments, device), backend, **options)
    exact = run_scan(put(arguments, 'cpu', torch.float64), 'reference', **options)
    for name, expected in exact.items():
        # Some gradients of extreme steps underflow in float32.
        assert_close(actual[name].cpu(), expected.float(), looser(GRADIENT[FLOAT], *rows), name)


def options_of_width(state, group_size):
    """Return options with a large eps for norms of one or two channels or states, which cancel most of a gradient."""
    return {'group_size': group_size, 'eps': 1.0 if state == 1 or group_size <= 2 else 1e-6}


class ScanCases:
    backend = 'cuda'

    @pytest.mark.parametrize('length', (1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 145, 197, 577))
    def test_every_length(self, device, length):
        rows = ('hundreds of tokens',) if length > 200 else ()
        assert_equals_reference(make_scan_arguments(length=length), device, self.backend, *rows)

    @pytest.mark.parametrize('state', (1, 2, 5, 6, 16, 18, 32))
    @pytest.mark.parametrize(
        ('channels', 'group_size'),
        [(2, 1), (6, 2), (48, 16), (96, 32), (64, 64), (40, 40), (192, 64), (100, 50), (76, 4)],
    )
    def test_every_width(self, device, channels, group_size, state):
        arguments = make_scan_arguments(channels=channels, state=state, length=34)
        if state % 2:
            arguments |= {'freq': None, 'positions': None}
        rows = ('narrow norm',) if group_size == 1 or state <= 2 else ()
        assert_equals_reference(arguments, device, self.backend, *rows, **options_of_width(state, group_size))

    @pytest.mark.parametrize('absent', [('freq', 'positions'), ('positions',), ('initial_state',)])
    def test_without(self, device, absent):
        assert_equals_reference({**make_scan_arguments(batch=3), **dict.fromkeys(absent)}, device, self.backend)

    @pytest.mark.parametrize('used', (0, 1))
    def test_one_output_used_alone(self, device, used):
        gradients = []
        for place, backend in ((device, self.backend), ('cpu', 'reference')):
            torch.manual_seed(2)
            arguments = put(make_scan_arguments(), place)
            output = defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend=backend)[used]
            gradients.append(torch.autograd.grad(output.square().sum(), arguments['dt'])[0].cpu())
        assert_close(*gradients, GRADIENT[FLOAT], 'gradient of dt')

    @pytest.mark.parametrize('channels', (64, 72))
    @pytest.mark.parametrize('offset', (0, 8, 3))
    def test_slices_of_wider_rows(self, device, offset, channels):
        """Offset 3 is not a multiple of 16 bytes. NaN surrounds the slices."""
        plain = put(make_scan_arguments(channels=channels, length=37), device)
        sliced = dict(plain)
        for name in NAMES:
            value = plain[name].detach()
            wide = torch.full((*value.shape[:-1], value.shape[-1] + 16), math.nan, device=device)
            wide[..., offset : offset + value.shape[-1]] = value
            sliced[name] = wide[..., offset : offset + value.shape[-1]].requires_grad_()
        expected = run_scan(plain, self.backend)
        for name, result in run_scan(sliced, self.backend).items():
            torch.testing.assert_close(result, expected[name], msg=name)

    def test_any_strides(self, device):
        plain = put(make_scan_arguments(length=37), device)
        permuted = dict(plain)
        for name in NAMES:
            permuted[name] = plain[name].detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        expected = run_scan(plain, self.backend)
        for name, result in run_scan(permuted, self.backend).items():
            torch.testing.assert_close(result, expected[name], msg=name)
        y = defocus_scan(**plain, **OPTIONS, backend=self.backend)
        # The gradient of y is one number, expanded with strides of 0.
        (gradient,) = torch.autograd.grad(y.sum(), plain['u'], retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(y, plain['u'], torch.ones_like(y))[0])

    @pytest.mark.parametrize('dtype', HALF)
    def test_half_types_compute_in_float32(self, device, dtype):
        arguments = {name: value.detach() for name, value in put(make_scan_arguments(length=70), device).items()}
        half = {name: arguments[name].to(dtype).requires_grad_() for name in ACTIVATIONS}
        exact = {name: value.detach().float().requires_grad_() for name, value in half.items()}
        options = {**OPTIONS, 'return_last_state': True, 'backend': self.backend}
        y, state = defocus_scan(**{**arguments, **half}, **options)
        expected, expected_state = defocus_scan(**{**arguments, **exact}, **options)
        assert y.dtype == dtype
        assert state.dtype == FLOAT
        assert_close(y.float(), expected, HALF[dtype], 'y')
        assert_close(state, expected_state, FORWARD[FLOAT], 'last_state')
        grad_output = torch.randn(y.shape).to(y)
        gradients = torch.autograd.grad(y, list(half.values()), grad_output)
        expected_gradients = torch.autograd.grad(expected, list(exact.values()), grad_output.float())
        for name, gradient, other in zip(half, gradients, expected_gradients, strict=True):
            assert gradient.dtype == dtype
            assert_close(gradient.float(), other, HALF[dtype], f'gradient of {name}')

    @pytest.mark.parametrize('at', (1, 15, 16, 33, 64))
    def test_a_sequence_continues_across_a_cut(self, device, at):
        arguments = put(make_scan_arguments(length=70), device)

        def part(state, begin, end):
            along = {name: arguments[name][:, begin:end] for name in ACTIVATIONS}
            changed = {**arguments, **along, 'positions': arguments['positions'][begin:end], 'initial_state': state}
            return defocus_scan(**changed, **OPTIONS, return_last_state=True, backend=self.backend)

        inputs = [arguments[name] for name in NAMES]
        whole, last_state = part(arguments['initial_state'], 0, 70)
        expected = torch.autograd.grad(whole.square().sum() + last_state.sum(), inputs)
        first, state = part(arguments['initial_state'], 0, at)
        second, end = part(state, at, 70)
        assert_close(torch.cat((first, second), dim=1), whole, FORWARD[FLOAT], 'y')
        assert_close(end, last_state, FORWARD[FLOAT], 'last_state')
        actual = torch.autograd.grad(first.square().sum() + second.square().sum() + end.sum(), inputs)
        for name, gradient, other in zip(NAMES, actual, expected, strict=True):
            assert_close(gradient, other, GRADIENT[FLOAT], f'gradient of {name}')

    @pytest.mark.parametrize('scale', (0.0, 1e-20, 1e3, 1e30))
    def test_extreme_decay(self, device, scale):
        arguments = {name: value.detach() for name, value in make_scan_arguments().items()}
        arguments['A'] *= scale
        arguments['dt'] *= 30
        expected = defocus_scan(**arguments, **OPTIONS, backend='reference')
        actual = defocus_scan(**put(arguments, device), **OPTIONS, backend=self.backend)
        assert_close(actual.cpu(), expected, FORWARD[FLOAT])

    @pytest.mark.parametrize('step', (-200.0, -30.0, 19.0, 21.0, 200.0))
    def test_extreme_steps(self, device, step):
        arguments = make_scan_arguments()
        with torch.no_grad():
            arguments['dt'].add_(step)
        # Steps of 200 make the state forget all earlier tokens; the norm then cancels C, whose gradient is noise.
        assert_equals_reference(arguments, device, self.backend, delta_scale=max(step, 2.0))

    def test_is_causal(self, device):
        arguments = put(make_scan_arguments(length=70), device)
        y = defocus_scan(**arguments, **OPTIONS, backend=self.backend)
        for name in ('u', 'dt', 'B', 'C'):
            (gradient,) = torch.autograd.grad(y[:, 40].sum(), arguments[name], retain_graph=True)
            assert gradient[:, 41:].abs().max() == 0, name
            assert gradient[:, 40].abs().max() > 0, name
        (gradient,) = torch.autograd.grad(y[:, 40].sum(), arguments['u'])
        assert gradient[:, 0].abs().max() > 0

    def test_no_sequence_in_the_batch(self, device):
        arguments = put(make_scan_arguments(batch=0), device)
        results = run_scan(arguments, self.backend)
        assert results['y'].shape == (0, 33, 24)
        assert results['last_state'].shape == (0, 24, 16)
        for name in ('A', 'D', 'dt_bias', 'freq'):
            assert torch.equal(results[f'gradient of {name}'], torch.zeros_like(arguments[name])), name


class SegmentCases:
    """Sequences that are cut into parallel segments; the fixture `cut` provides enough multiprocessors."""

    backend = 'cuda'

    @pytest.mark.parametrize('length', (257, 288, 511, 577, 1201))
    def test_segments(self, device, cut, length):
        arguments = make_scan_arguments(batch=1, channels=16, length=length)
        assert_equals_reference(arguments, device, self.backend, 'hundreds of tokens')

    @pytest.mark.parametrize('absent', [('initial_state',), ('freq', 'positions')])
    def test_segments_without(self, device, cut, absent):
        arguments = make_scan_arguments(batch=2, channels=72, state=18, length=400)
        assert_equals_reference({**arguments, **dict.fromkeys(absent)}, device, self.backend, 'hundreds of tokens')

    @pytest.mark.parametrize('used', (0, 1))
    def test_one_output_of_segments_used_alone(self, device, cut, used):
        gradients = []
        for place, backend in ((device, self.backend), ('cpu', 'reference')):
            torch.manual_seed(2)
            arguments = put(make_scan_arguments(batch=1, channels=8, length=600), place)
            output = defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend=backend)[used]
            gradients.append(torch.autograd.grad(output.square().sum(), arguments['dt'])[0].cpu())
        assert_close(*gradients, looser(GRADIENT[FLOAT], 'hundreds of tokens'), 'gradient of dt')


def run_conv(arguments, activation, backend):
    y = causal_conv1d(*arguments, activation=activation, backend=backend)
    grad_output = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    present = [tensor for tensor in arguments if tensor is not None]
    return [y, *torch.autograd.grad(y, present, grad_output)]


def put_all(arguments, device):
    return list(put(dict(enumerate(arguments)), device).values())


class ConvCases:
    backend = 'cuda'

    def assert_same(self, arguments, device, activation='silu'):
        actual = run_conv(put_all(arguments, device), activation, self.backend)
        expected = run_conv(arguments, activation, 'reference')
        for name, result, other in zip(('y', 'x', 'weight', 'bias'), actual, expected, strict=False):
            assert_close(result.cpu(), other, GRADIENT[FLOAT], name)

    @pytest.mark.parametrize('activation', (None, 'silu'))
    @pytest.mark.parametrize('length', (1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 66, 67, 145))
    def test_every_length(self, device, length, activation):
        self.assert_same(make_conv_arguments(length=length), device, activation)

    @pytest.mark.parametrize('bias', (True, False))
    @pytest.mark.parametrize('width', range(1, CUDA_LIMITS.max_width + 1))
    @pytest.mark.parametrize('channels', (1, 3, 17, 64))
    def test_every_width(self, device, channels, width, bias):
        self.assert_same(make_conv_arguments(channels=channels, width=width, bias=bias), device)

    def test_is_causal(self, device):
        arguments = put_all(make_conv_arguments(), device)
        y = causal_conv1d(*arguments, activation='silu', backend=self.backend)
        gradient = torch.autograd.grad(y[:, :, 65].sum(), arguments[0])[0]
        assert gradient[..., 66:].abs().max() == 0
        assert gradient[..., :62].abs().max() == 0
        assert (gradient[..., 62:66].abs().amax(dim=(0, 1)) > 0).all()

    @pytest.mark.parametrize('offset', (0, 1, 8))
    def test_channels_last_and_slices(self, device, offset):
        """The result has the memory order of the argument. NaN surrounds the slices."""
        x, weight, bias = put_all(make_conv_arguments(), device)
        expected = run_conv([x, weight, bias], 'silu', self.backend)
        wide = torch.full((2, 70, 56), math.nan, device=device)
        wide[..., offset : offset + 40] = x.detach().transpose(1, 2)
        rows = wide[..., offset : offset + 40].transpose(1, 2).requires_grad_()
        actual = run_conv([rows, weight, bias], 'silu', self.backend)
        assert actual[0].stride() == (70 * 40, 1, 40)
        assert actual[1].stride() == (70 * 40, 1, 40)
        assert expected[0].stride() == x.stride()
        for result, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(result, other)

    @pytest.mark.parametrize('dtype', HALF)
    def test_half_types_compute_in_float32(self, device, dtype):
        x, weight, bias = put_all(make_conv_arguments(), device)
        half = x.detach().to(dtype).requires_grad_()
        exact = half.detach().float().requires_grad_()
        y = causal_conv1d(half, weight, bias, 'silu', backend=self.backend)
        expected = causal_conv1d(exact, weight, bias, 'silu', backend=self.backend)
        assert y.dtype == dtype
        assert_close(y.float(), expected, HALF[dtype], 'y')
        grad_output = torch.randn(y.shape).to(y)
        gradients = torch.autograd.grad(y, (half, weight, bias), grad_output)
        others = torch.autograd.grad(expected, (exact, weight, bias), grad_output.float())
        assert [gradient.dtype for gradient in gradients] == [dtype, FLOAT, FLOAT]
        for name, gradient, other in zip(('x', 'weight', 'bias'), gradients, others, strict=True):
            tolerance = HALF[dtype] if name == 'x' else GRADIENT[FLOAT]
            assert_close(gradient.float(), other, tolerance, f'gradient of {name}')

    def test_nan_passes_through(self, device):
        x, weight, bias = (tensor.detach() for tensor in put_all(make_conv_arguments(), device))
        x[0, 3, 10] = math.nan
        y = causal_conv1d(x, weight, bias, 'silu', backend=self.backend)
        assert y[0, 3, 10:14].isnan().all()
        assert y.isnan().sum() == 4
