"""Tests of the adapter for mamba-ssm's scan: availability and passed arguments. A stub replaces the package."""

import sys
import types

import pytest
import torch
from test_selective_scan import make
from tolerances import FORWARD, HALF, assert_close

from mmdefocus.ops import backends, selective_scan
from mmdefocus.ops.backends import can_run_mamba_ssm, choose_backend

CPU, GPU = torch.device('cpu'), torch.device('cuda', 0)


@pytest.fixture(autouse=True)
def _clear_cache():
    backends._no_mamba_ssm.cache_clear()
    yield
    backends._no_mamba_ssm.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """Simulate a GPU and an installed mamba-ssm with its compiled scan."""
    package = types.ModuleType('mamba_ssm')
    package.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, 'mamba_ssm', package)
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', types.ModuleType('selective_scan_cuda'))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)


def test_chosen_for_gpu_tensors_if_installed(installed):
    assert can_run_mamba_ssm() is None
    assert choose_backend(None, GPU, torch.bfloat16, ('mamba_ssm', 'cpp', 'reference')) == 'mamba_ssm'
    assert choose_backend(None, CPU, torch.bfloat16, ('mamba_ssm', 'reference')) == 'reference'


def test_reasons_why_it_cannot_run(installed, monkeypatch):
    assert can_run_mamba_ssm(CPU) == 'its kernels run on CUDA tensors, got tensors on cpu'
    assert can_run_mamba_ssm(GPU, torch.float64) == 'its kernels compute in float32, got float64'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert can_run_mamba_ssm() == 'torch finds no CUDA GPU'


def test_missing_compiled_scan_is_reported(installed, monkeypatch):
    monkeypatch.setitem(sys.modules, 'selective_scan_cuda', None)
    assert can_run_mamba_ssm(GPU).startswith('mamba-ssm is installed, but its compiled scan cannot be imported (')


def test_missing_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mamba_ssm', None)
    with pytest.raises(RuntimeError, match=r"'mamba_ssm' cannot run: mamba-ssm is not installed; .*mmdefocus\[mamba\]"):
        choose_backend('mamba_ssm', GPU)


@pytest.fixture
def calls(monkeypatch):
    """Replace `selective_scan_fn` by the reference on the CPU; return the list of the arguments of its calls."""
    seen = []

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, **options):
        assert options == {'return_last_state': True}
        seen.append({'u': u, 'delta': delta, 'A': A, 'B': B, 'C': C, 'D': D, 'z': z, 'delta_bias': delta_bias})
        return selective_scan(**seen[-1], delta_softplus=delta_softplus, return_last_state=True, backend='reference')

    module = types.ModuleType('mamba_ssm.ops.selective_scan_interface')
    module.selective_scan_fn = selective_scan_fn
    for name in ('mamba_ssm', 'mamba_ssm.ops'):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(backends._PREDICATES, 'mamba_ssm', lambda device, dtype: None)
    return seen


@pytest.mark.parametrize('constant', ('', 'B', 'BC'))
def test_half_types_are_passed_on_with_float32_parameters(calls, constant):
    """Its kernels require one type for all activations, and float32 for tensors that do not depend on the input."""
    arguments = {name: x.detach().bfloat16() for name, x in make(constant=constant).items()}
    options = {'delta_softplus': True, 'return_last_state': True}
    y, state = selective_scan(**arguments, **options, backend='mamba_ssm')
    (call,) = calls
    parameters = {'A', 'D', 'delta_bias', *constant}
    assert {name: x.dtype for name, x in call.items()} == {
        name: torch.float32 if name in parameters else torch.bfloat16 for name in call
    }
    expected, expected_state = selective_scan(**arguments, **options, backend='reference')
    assert_close(y.float(), expected.float(), HALF[torch.bfloat16])
    assert_close(state, expected_state, FORWARD[torch.float32])


def test_absent_arguments_are_passed_as_none(calls):
    arguments = {name: x.detach() for name, x in make().items()} | dict.fromkeys(('D', 'z', 'delta_bias'))
    y = selective_scan(**arguments, backend='mamba_ssm')
    assert torch.equal(y, selective_scan(**arguments, backend='reference'))
    assert [calls[0][name] for name in ('D', 'z', 'delta_bias')] == [None] * 3


def test_unsupported_arguments_raise(calls):
    arguments = make(length=3)
    selective_scan(**arguments, backend='mamba_ssm').sum().backward()
    with pytest.raises(RuntimeError, match=r"'mamba_ssm' cannot run: its last state has no gradient; .*torch.no_grad"):
        selective_scan(**arguments, return_last_state=True, backend='mamba_ssm')
    with torch.no_grad():
        selective_scan(**arguments, return_last_state=True, backend='mamba_ssm')
    with pytest.raises(RuntimeError, match='its kernels take a state of up to 256, got 257'):
        selective_scan(**make(length=1, state=257), backend='mamba_ssm')
