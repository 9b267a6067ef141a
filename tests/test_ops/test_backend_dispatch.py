"""Tests that each operator runs the backend that its caller names.

Otherwise the comparisons of backends would compare a backend with itself.
"""

import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdefocus.ops import (
    bandpass_attention,
    causal_conv1d,
    defocus_scan,
    neighbourhood_attention,
    retention,
    selective_scan,
)
from mmdefocus.ops.bandpass.rotary import apply_rotary
from mmdefocus.ops.kernel_limits import CUDA_LIMITS, TRITON_LIMITS

B, L, E, N, H, P = 2, 5, 8, 3, 2, 4


def scan(**options):
    u, dt, z = torch.randn(3, B, L, E)
    b, c = torch.randn(2, B, L, N)
    return defocus_scan(u, dt, -torch.rand(E, N), b, c, torch.ones(E), z, torch.zeros(E), group_size=4, **options)


def plain_scan(**options):
    u, delta, z = torch.randn(3, B, E, L)
    b, c = torch.randn(2, B, N, L)
    return selective_scan(u, delta, -torch.rand(E, N), b, c, z=z, **options)


def convolution(**options):
    return causal_conv1d(torch.randn(B, E, L), torch.randn(E, 4), torch.zeros(E), **options)


CALLS = {'defocus_scan': scan, 'selective_scan': plain_scan, 'causal_conv1d': convolution}


@pytest.fixture
def called(monkeypatch):
    """Record the names of the backends that run, in order."""
    names = []
    for op in CALLS:
        module = importlib.import_module(f'mmdefocus.ops.{op}')
        for name, implementation in list(module._IMPLEMENTATIONS.items()):

            def spy(*arguments, name=name, implementation=implementation):
                names.append(name)
                return implementation(*arguments)

            monkeypatch.setitem(module._IMPLEMENTATIONS, name, spy)
    return names


@pytest.mark.parametrize('op', CALLS)
@pytest.mark.parametrize(('backend', 'runs'), [(None, 'cpp'), ('cpp', 'cpp'), ('reference', 'reference')])
def test_the_named_backend_runs(called, op, backend, runs):
    CALLS[op](backend=backend)
    assert called == [runs]


@pytest.mark.parametrize('op', CALLS)
def test_the_choice_knows_tensors_and_limits(monkeypatch, op):
    module = importlib.import_module(f'mmdefocus.ops.{op}')
    asked = []

    def choose(backend, device, dtype, implemented, unsupported):
        asked.append((backend, device, dtype, list(implemented), unsupported))
        return 'reference'

    monkeypatch.setattr(module, 'choose_backend', choose)
    CALLS[op](backend='cpp')
    ((backend, device, dtype, implemented, limits),) = asked
    assert (backend, device, dtype) == ('cpp', torch.device('cpu'), torch.float32)
    assert implemented == list(module._IMPLEMENTATIONS)
    assert set(limits) == ({'mamba_ssm', 'cpp'} if op == 'selective_scan' else {'cuda', 'triton'})
    assert set(limits.values()) == {None}


def test_limits_of_kernels_are_those_of_the_arguments(monkeypatch):
    asked = {}

    def choose(backend, device, dtype, implemented, unsupported):
        asked.update(unsupported)
        return 'reference'

    for op in ('defocus_scan', 'causal_conv1d'):
        monkeypatch.setattr(importlib.import_module(f'mmdefocus.ops.{op}'), 'choose_backend', choose)
    causal_conv1d(torch.randn(B, E, L), torch.randn(E, 5))
    for name, limits in (('cuda', CUDA_LIMITS), ('triton', TRITON_LIMITS)):
        assert asked[name] == limits.unsupported_convolution(5) == 'its kernels take a width of up to 4, got 5'
    u, dt, z = torch.randn(3, B, L, 192)
    b, c = torch.randn(2, B, L, N)
    defocus_scan(u, dt, -torch.rand(192, N), b, c, torch.ones(192), z, torch.zeros(192), group_size=96)
    assert asked['cuda'] == 'its kernels take a group_size of up to 64, got 96'
    assert asked['triton'] is None


@pytest.mark.parametrize('backend', [None, 'reference'])
@pytest.mark.parametrize(
    ('op', 'reference'),
    [(bandpass_attention, 'bandpass_attention_reference'), (retention, 'retention_reference')],
)
def test_the_loop_runs_where_it_is_named(monkeypatch, op, reference, backend):
    module = importlib.import_module(f'mmdefocus.ops.bandpass.{op.__name__.removeprefix("bandpass_")}')
    original, calls = getattr(module, reference), []
    monkeypatch.setattr(
        module, reference, lambda *arguments, **options: calls.append(1) or original(*arguments, **options)
    )
    q, k, v = torch.randn(3, B, H, L, 2 * P)
    op(q, k, v, torch.rand(H, P), torch.rand(H, P), backend=backend)
    assert len(calls) == (backend is not None)


def test_attention_hands_the_kernels_what_it_was_given(monkeypatch):
    module = importlib.import_module('mmdefocus.ops.bandpass.attention')
    asked, given = [], []

    def choose(*arguments, implemented):
        asked.append((*arguments, implemented))
        return 'triton'

    monkeypatch.setattr(module, 'requested_backend', choose)
    monkeypatch.setattr(module, 'attend_triton', lambda *arguments: given.append(arguments) or (arguments[2],))
    q, k, v = torch.randn(3, B, H, L, 2 * P).bfloat16()
    decay, freq = torch.rand(2, H, P)
    y = bandpass_attention(q, k, v, decay, freq, causal=False, scale=0.5, backend='triton')
    assert asked == [('triton', torch.device('cpu'), torch.float32, ('triton', 'cpp', 'reference'))]
    ((query, key, value, self_logits, rates, causal),) = given
    assert {query.dtype, key.dtype, value.dtype, y.dtype} == {torch.bfloat16}
    assert torch.equal(query, apply_rotary(0.5 * q.float(), freq).bfloat16())
    assert torch.equal(key, apply_rotary(k.float(), freq).bfloat16())
    assert torch.equal(value, v)
    assert torch.equal(self_logits, (0.5 * q.float() * k.float()).sum(-1, keepdim=True))
    assert torch.equal(rates[:, 0::2], decay)
    assert torch.equal(rates[:, 1::2], decay)
    assert causal is False


@pytest.fixture
def neighbourhood(monkeypatch):
    """Record the names of the backends of neighbourhood attention that run, and their arguments."""
    module = importlib.import_module('mmdefocus.ops.neighbourhood_attention.attention')
    calls = []
    for name in ('attend', 'attend_triton', 'neighbourhood_attention_reference'):

        def spy(*arguments, name=name):
            calls.append((name, arguments))
            return (arguments[0],) if name == 'attend_triton' else arguments[0]

        monkeypatch.setattr(module, name, spy)
    monkeypatch.setattr(module, 'can_run_triton', lambda device, dtype: 'no' if dtype == torch.float64 else None)
    return calls


@pytest.mark.parametrize(
    ('device', 'dtype', 'backend', 'runs'),
    [
        ('cpu', torch.float32, None, 'attend'),
        ('cpu', torch.float32, 'reference', 'neighbourhood_attention_reference'),
        ('cuda', torch.bfloat16, None, 'attend_triton'),
        ('cuda', torch.float64, None, 'attend'),
        ('cuda', torch.float32, 'reference', 'neighbourhood_attention_reference'),
    ],
)
def test_neighbourhood_attention_uses_triton_where_it_can(neighbourhood, device, dtype, backend, runs):
    with FakeTensorMode():  # tensors of a GPU that need not be present
        q, k, v = (torch.empty(B, H, 9, 7, P, dtype=dtype, device=device) for _ in range(3))
        neighbourhood_attention(q, k, v, None, 3, 0.5, backend)
    ((name, arguments),) = neighbourhood
    assert name == runs
    if runs == 'attend_triton':  # which converts as it loads
        assert all(given is asked for given, asked in zip(arguments[:3], (q, k, v), strict=True))
        assert arguments[3].dtype == torch.float32


def test_the_environment_chooses_a_backend_of_neighbourhood_attention(neighbourhood, monkeypatch):
    q = torch.zeros(B, H, 9, 7, P)
    for variable in ('reference', 'cpp'):
        monkeypatch.setenv('MMDEFOCUS_BACKEND', variable)
        neighbourhood_attention(q, q, q, None, 3)
    assert [name for name, _ in neighbourhood] == ['neighbourhood_attention_reference', 'attend']
