"""Tests of the fused scan: each backend equals the reference, and the reference equals a loop over scalars."""

import math

import pytest
import torch
from tolerances import FORWARD, GRADIENT, HALF, assert_close

from mmdefocus.ops import available_backends, defocus_scan

LENGTHS = (1, 2, 3, 31, 32, 33, 63, 64, 65, 145, 197, 577)
NAMES = ('u', 'dt', 'A', 'B', 'C', 'D', 'z', 'dt_bias', 'freq', 'initial_state')
ACTIVATIONS = ('u', 'dt', 'B', 'C', 'z')
FLOATS = (torch.float32, torch.float64)
OPTIONS = {'delta_scale': 2.0, 'group_size': 8}
COMPILED = [name for name in ('cpp',) if available_backends()[name] is None]
BACKENDS = ['reference', *COMPILED]


def make(batch=2, channels=24, length=33, state=16, dtype=torch.float32):
    """Make random arguments by name, with fractional positions that start at 3 and with an initial state."""
    tensor = lambda *shape: torch.randn(*shape, dtype=dtype)  # noqa: E731
    arguments = {
        'u': tensor(batch, length, channels),
        'dt': tensor(batch, length, channels),
        'A': -torch.rand(channels, state, dtype=dtype) * 4,
        'B': tensor(batch, length, state),
        'C': tensor(batch, length, state),
        'D': tensor(channels),
        'z': tensor(batch, length, channels),
        'dt_bias': tensor(channels),
        'freq': torch.rand(state, dtype=dtype),
        'initial_state': tensor(batch, channels, state),
    }
    arguments = {name: value.requires_grad_() for name, value in arguments.items()}
    return {**arguments, 'positions': torch.arange(length, dtype=dtype) / 4 + 3}


def run(arguments, backend, **options):
    """Return outputs and the gradients of all arguments, for the same output gradients in every call."""
    options = {**OPTIONS, **options}
    y, state = defocus_scan(**arguments, **options, return_last_state=True, backend=backend)
    generator = torch.Generator().manual_seed(1)
    grad_outputs = [
        torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in (y, state)
    ]
    names = [name for name in NAMES if arguments.get(name) is not None]
    gradients = torch.autograd.grad([y, state], [arguments[name] for name in names], grad_outputs)
    return {'y': y, 'last_state': state}, dict(zip(names, gradients, strict=True))


def assert_same(arguments, backend, **options):
    dtype = arguments['u'].dtype
    outputs, gradients = run(arguments, backend, **options)
    expected_outputs, expected_gradients = run(arguments, 'reference', **options)
    for name, expected in expected_outputs.items():
        assert_close(outputs[name], expected, FORWARD[dtype], name)
    for name, expected in expected_gradients.items():
        assert_close(gradients[name], expected, GRADIENT[dtype], f'gradient of {name}')


def test_reference_equals_a_loop_over_scalars():
    arguments = make(batch=1, channels=4, length=5, state=2, dtype=torch.float64)
    y, last_state = defocus_scan(
        **arguments, delta_scale=2.0, group_size=2, eps=0.1, return_last_state=True, backend='reference'
    )
    a = {
        name: value.detach()[0].tolist() if name in (*ACTIVATIONS, 'initial_state') else value.detach().tolist()
        for name, value in arguments.items()
    }
    h = a['initial_state']
    for t in range(5):
        theta = [a['positions'][t] * f for f in a['freq']]

        def rotate(x, theta=theta):
            return [
                x[0] * math.cos(theta[0]) - x[1] * math.sin(theta[0]),
                x[1] * math.cos(theta[1]) + x[0] * math.sin(theta[1]),
            ]

        b, c = rotate(a['B'][t]), rotate(a['C'][t])
        out = []
        for e in range(4):
            delta = math.log1p(math.exp(a['dt'][t][e] + a['dt_bias'][e])) / 2
            h[e] = [math.exp(delta * a['A'][e][n]) * h[e][n] + delta * a['u'][t][e] * b[n] for n in range(2)]
            out.append(sum(h[e][n] * c[n] for n in range(2)))
        for e in range(4):
            group = out[e // 2 * 2 : e // 2 * 2 + 2]
            normed = out[e] / math.sqrt(sum(x * x for x in group) / 2 + 0.1)
            gate = a['z'][t][e] / (1 + math.exp(-a['z'][t][e]))
            expected = (normed + a['D'][e] * a['u'][t][e]) * gate
            assert y[0, t, e].item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(last_state[0], torch.tensor(h, dtype=torch.float64))


def test_gradcheck_of_the_reference():
    arguments = make(batch=1, channels=4, length=3, state=2, dtype=torch.float64)
    positions = arguments.pop('positions')

    def function(*tensors):
        named = dict(zip(arguments, tensors, strict=True))
        options = {'group_size': 2, 'return_last_state': True, 'backend': 'reference'}
        return defocus_scan(**named, positions=positions, **options)

    assert torch.autograd.gradcheck(function, tuple(arguments.values()))


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('backend', COMPILED)
def test_equals_reference_at_every_length(backend, length, dtype):
    assert_same(make(length=length, dtype=dtype), backend)


@pytest.mark.parametrize('length', (2049, 4705))
@pytest.mark.parametrize('backend', COMPILED)
def test_equals_reference_on_long_sequences(backend, length):
    assert_same(make(batch=1, channels=8, length=length, dtype=torch.float64), backend)


@pytest.mark.parametrize('state', (2, 6, 16, 18))
@pytest.mark.parametrize(('channels', 'group_size'), [(1, 1), (6, 2), (64, 64), (40, 40), (192, 64), (100, 50)])
@pytest.mark.parametrize('backend', COMPILED)
def test_equals_reference_at_every_width(backend, channels, group_size, state):
    assert_same(make(channels=channels, state=state, length=34, dtype=torch.float64), backend, group_size=group_size)


@pytest.mark.parametrize('absent', [('freq', 'positions'), ('positions',), ('initial_state',)])
@pytest.mark.parametrize('backend', COMPILED)
def test_equals_reference_without_optional_arguments(backend, absent):
    assert_same({**make(), **dict.fromkeys(absent)}, backend)


def test_positions_count_from_zero_by_default():
    arguments = {**make(length=7), 'positions': None}
    counted = {**arguments, 'positions': torch.arange(7.0)}
    assert torch.equal(defocus_scan(**arguments, **OPTIONS), defocus_scan(**counted, **OPTIONS))


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('backend', BACKENDS)
def test_default_positions_of_half_types_are_float32(backend, dtype):
    """bfloat16 cannot represent 257, and float16 cannot represent 2049."""
    length = 300 if dtype == torch.bfloat16 else 2100
    arguments = {name: value.detach() for name, value in make(batch=1, channels=8, length=length).items()}
    arguments |= {name: arguments[name].to(dtype) for name in ACTIVATIONS}
    counted = {**arguments, 'positions': torch.arange(length, dtype=torch.float32)}
    y = defocus_scan(**{**arguments, 'positions': None}, **OPTIONS, backend=backend)
    assert torch.equal(y, defocus_scan(**counted, **OPTIONS, backend=backend))


@pytest.mark.parametrize('boundary', (1, 31, 32, 33, 64, 99))
@pytest.mark.parametrize('backend', BACKENDS)
def test_last_state_continues_a_sequence(backend, boundary):
    arguments = make(length=100, dtype=torch.float64)

    def part(state, *bounds):
        along = {name: arguments[name][:, slice(*bounds)] for name in ACTIVATIONS}
        positions = arguments['positions'][slice(*bounds)]
        changed = {**arguments, **along, 'positions': positions, 'initial_state': state}
        return defocus_scan(**changed, **OPTIONS, return_last_state=True, backend=backend)

    whole, last_state = part(arguments['initial_state'], 0, 100)
    first, state = part(arguments['initial_state'], 0, boundary)
    second, end = part(state, boundary, 100)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(end, last_state, rtol=1e-12, atol=1e-12)
    inputs = [arguments[name] for name in NAMES]
    expected = torch.autograd.grad(whole.square().sum() + last_state.sum(), inputs)
    actual = torch.autograd.grad(first.square().sum() + second.square().sum() + end.sum(), inputs)
    for name, gradient, other in zip(NAMES, actual, expected, strict=True):
        assert_close(gradient, other, GRADIENT[torch.float64], f'gradient of {name}')


@pytest.mark.parametrize('backend', BACKENDS)
def test_is_causal(backend):
    arguments = make(length=70)
    y = defocus_scan(**arguments, **OPTIONS, backend=backend)
    for name in ACTIVATIONS[:4]:
        (gradient,) = torch.autograd.grad(y[:, 40].sum(), arguments[name], retain_graph=True)
        assert gradient[:, 41:].abs().max() == 0, name
        assert gradient[:, 40].abs().max() > 0, name
    (gradient,) = torch.autograd.grad(y[:, 40].sum(), arguments['u'])
    assert gradient[:, 0].abs().max() > 0


@pytest.mark.parametrize('backend', COMPILED)
def test_slices_of_projections_and_expanded_gradients(backend):
    """The mixer passes slices of wider rows; other strides and expanded gradients must work as well."""
    plain = make(length=37)
    strided = dict(plain)
    for name in NAMES:
        value = plain[name].detach()
        wide = torch.full((*value.shape[:-1], 3 * value.shape[-1]), torch.nan)
        wide[..., value.shape[-1] : 2 * value.shape[-1]] = value
        strided[name] = wide[..., value.shape[-1] : 2 * value.shape[-1]].requires_grad_()
    permuted = dict(plain)
    for name in NAMES:
        permuted[name] = plain[name].detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
    expected = run(plain, backend)
    for other in (strided, permuted):
        for actual_part, expected_part in zip(run(other, backend), expected, strict=True):
            for name in expected_part:
                torch.testing.assert_close(actual_part[name], expected_part[name], msg=name)
    y = defocus_scan(**plain, **OPTIONS, backend=backend)
    (gradient,) = torch.autograd.grad(y.sum(), plain['u'], retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(y, plain['u'], torch.ones_like(y))[0])


@pytest.mark.parametrize('used', (0, 1))
@pytest.mark.parametrize('backend', COMPILED)
def test_gradients_with_only_one_output_used(backend, used):
    arguments = make()
    gradients = []
    for name in (backend, 'reference'):
        output = defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend=name)[used]
        gradients.append(torch.autograd.grad(output.square().sum(), arguments['dt'])[0])
    assert_close(*gradients, GRADIENT[torch.float32], 'gradient of dt')


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('backend', BACKENDS)
def test_half_types_compute_in_float32(backend, dtype):
    arguments = {name: value.detach() for name, value in make(length=70).items()}
    half = {name: arguments[name].to(dtype).requires_grad_() for name in ACTIVATIONS}
    exact = {name: value.detach().float().requires_grad_() for name, value in half.items()}
    options = {**OPTIONS, 'return_last_state': True, 'backend': backend}
    y, state = defocus_scan(**{**arguments, **half}, **options)
    expected, expected_state = defocus_scan(**{**arguments, **exact}, **options)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    assert state.dtype == torch.float32
    assert torch.equal(state, expected_state)
    grad_output = torch.randn_like(y)
    gradients = torch.autograd.grad(y, list(half.values()), grad_output)
    expected_gradients = torch.autograd.grad(expected, list(exact.values()), grad_output.float())
    for name, gradient, other in zip(half, gradients, expected_gradients, strict=True):
        assert gradient.dtype == dtype
        assert_close(gradient.float(), other, HALF[dtype], f'gradient of {name}')


def test_autocast_does_not_change_the_result():
    arguments = make()
    for backend in BACKENDS:
        expected = defocus_scan(**arguments, **OPTIONS, backend=backend)
        with torch.autocast('cpu', torch.bfloat16):
            y = defocus_scan(**arguments, **OPTIONS, backend=backend)
        assert torch.equal(y, expected)


@pytest.mark.parametrize('scale', (0.0, 1e-20, 1e3, 1e30))
@pytest.mark.parametrize('backend', COMPILED)
def test_extreme_decay(backend, scale):
    arguments = {name: value.detach() for name, value in make().items()}
    arguments['A'] *= scale
    arguments['dt'] *= 30
    actual, expected = (defocus_scan(**arguments, **OPTIONS, backend=name) for name in (backend, 'reference'))
    assert_close(actual, expected, FORWARD[torch.float32])


@pytest.mark.parametrize('step', (-200.0, -30.0, 19.0, 21.0, 200.0))
@pytest.mark.parametrize('backend', COMPILED)
def test_extreme_steps(backend, step):
    arguments = make()
    with torch.no_grad():
        arguments['dt'].add_(step)
    # Steps of 200 would erase all earlier tokens; the norm then cancels C, whose gradient is only rounding error.
    assert_same(arguments, backend, delta_scale=max(step, 2.0))


def test_meta_tensors_give_the_shapes():
    arguments = {name: value.detach().to('meta') for name, value in make(length=5).items()}
    y, state = defocus_scan(**arguments, **OPTIONS, return_last_state=True)
    assert y.is_meta
    assert (y.shape, state.shape) == ((2, 5, 24), (2, 24, 16))
