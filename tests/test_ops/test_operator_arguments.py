"""Tests for all operators: errors name operator and argument; half-type parameters; autocast."""

import pytest
import torch
from tolerances import FORWARD, assert_close

from mmdefocus.ops import (
    bandpass_attention,
    causal_conv1d,
    defocus_scan,
    neighbourhood_attention,
    retention,
    rms_norm,
    selective_scan,
)

B, L, E, N, H, P = 2, 7, 8, 4, 2, 4


def scan():
    u, dt, z = torch.randn(3, B, L, E)
    b, c = torch.randn(2, B, L, N)
    filters = {'freq': torch.rand(N), 'positions': torch.arange(L).float()}
    state = {'initial_state': torch.randn(B, E, N)}
    others = {'A': -torch.rand(E, N), 'B': b, 'C': c, 'D': torch.randn(E), 'z': z, 'dt_bias': torch.randn(E)}
    return {'u': u, 'dt': dt, **others, **filters, **state}


def plain_scan():
    u, delta, z = torch.randn(3, B, E, L)
    b, c = torch.randn(2, B, N, L)
    others = {'A': -torch.rand(E, N), 'B': b, 'C': c, 'D': torch.randn(E), 'z': z, 'delta_bias': torch.randn(E)}
    return {'u': u, 'delta': delta, **others}


def convolution():
    return {'x': torch.randn(B, E, L), 'weight': torch.randn(E, 4), 'bias': torch.randn(E)}


def attention():
    q, k, v = torch.randn(3, B, H, L, 2 * P)
    return {'q': q, 'k': k, 'v': v, 'decay': torch.rand(H, P), 'freq': torch.rand(H, P)}


def recurrent_memory():
    return {**attention(), 'initial_state': torch.randn(B, H, 2 * P, 2 * P)}


def neighbourhood():
    q, k, v = torch.randn(3, B, H, L, L, P)
    return {'q': q, 'k': k, 'v': v, 'bias': torch.randn(H, 5, 5)}


def norm():
    return {'x': torch.randn(B, L, E), 'weight': torch.rand(E)}


MAKERS = {
    defocus_scan: scan,
    selective_scan: plain_scan,
    causal_conv1d: convolution,
    bandpass_attention: attention,
    retention: recurrent_memory,
    neighbourhood_attention: neighbourhood,
    rms_norm: norm,
}
ALL = [(op, name) for op, make in MAKERS.items() for name in make()]
OPTIONS = {
    defocus_scan: {'group_size': 4},
    selective_scan: {'delta_softplus': True},
    neighbourhood_attention: {'kernel_size': 3},
    rms_norm: {'eps': 1e-5},
}
each_argument = pytest.mark.parametrize(('op', 'name'), ALL, ids=[f'{op.__name__}-{name}' for op, name in ALL])
each_operator = pytest.mark.parametrize('op', MAKERS, ids=lambda op: op.__name__)
backends = pytest.mark.parametrize('backend', [None, 'reference'])


def call(op, arguments, **options):
    return op(**arguments, **OPTIONS.get(op, {}), **options)


@each_argument
def test_wrong_type_raises_and_names_the_argument(op, name):
    arguments = MAKERS[op]()
    with pytest.raises(TypeError, match=rf'^{op.__name__}: expected {name} as float16, .* got torch\.complex64'):
        call(op, arguments | {name: arguments[name].to(torch.complex64)})
    with pytest.raises(TypeError, match=rf'^{op.__name__}: expected {name} to be a tensor, got list'):
        call(op, arguments | {name: [1]})


@each_argument
def test_float64_mixed_with_float32_raises(op, name):
    arguments = MAKERS[op]()
    first, second = list(arguments)[:2]
    wrong = f'{first} is torch.float64 but {second}' if name == first else f'{first} is torch.float32 but {name}'
    with pytest.raises(TypeError, match=f'^{op.__name__}: {wrong} is torch'):
        call(op, arguments | {name: arguments[name].double()})


@pytest.mark.parametrize(('op', 'name'), [case for case in ALL if case != (rms_norm, 'x')])  # x has any shape
def test_wrong_shape_raises_and_names_the_argument(op, name):
    arguments = MAKERS[op]()
    with pytest.raises(ValueError, match=rf'^{op.__name__}: expected {name} of shape \('):
        call(op, arguments | {name: arguments[name][None]})


@backends
@each_operator
def test_half_parameters_equal_their_float32_values(op, backend):
    """Half-type parameters are converted to float32, so that no operation rounds them again."""
    arguments = MAKERS[op]()
    sequence = list(arguments)[:2] if op in (defocus_scan, selective_scan) else list(arguments)[:1]
    sequence += [name for name in ('B', 'C', 'z', 'k', 'v', 'positions', 'initial_state') if name in arguments]
    half = {name: tensor if name in sequence else tensor.bfloat16() for name, tensor in arguments.items()}
    exact = {name: tensor.float() for name, tensor in half.items()}
    assert_close(call(op, half, backend=backend), call(op, exact, backend=backend), FORWARD[torch.float32])


@backends
@each_operator
def test_autocast_does_not_change_the_result(op, backend):
    arguments = MAKERS[op]()
    expected = call(op, arguments, backend=backend)
    with torch.autocast('cpu', torch.bfloat16):
        actual = call(op, arguments, backend=backend)
    assert actual.dtype == expected.dtype
    assert_close(actual, expected, FORWARD[torch.float32])


@pytest.mark.parametrize('delta_scale', [0, -1.0, float('nan')])
def test_delta_scale_must_be_positive(delta_scale):
    with pytest.raises(ValueError, match=r'^defocus_scan: expected a positive delta_scale, got'):
        call(defocus_scan, scan(), delta_scale=delta_scale)
