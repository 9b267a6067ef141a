"""Tests of the choice of backends and of the reasons given against them, with patched machine properties."""

import types

import pytest
import torch

from mmdefocus.ops import backends
from mmdefocus.ops.backends import (
    available_backends,
    can_run_cuda,
    can_run_triton,
    choose_backend,
    requested_backend,
)
from mmdefocus.ops.kernel_limits import CUDA_LIMITS, TRITON_LIMITS, KernelLimits

CPU, GPU = torch.device('cpu'), torch.device('cuda', 0)


@pytest.fixture
def gpu_machine(monkeypatch):
    """Simulate a GPU with an extension that has kernels for it; tests change fields of the returned object."""
    machine = types.SimpleNamespace(missing='', available=True)
    monkeypatch.setattr(backends, '_NO_EXTENSION', None)
    monkeypatch.setattr(backends, '_BUILT_WITH_CUDA', True)
    monkeypatch.setattr(backends, '_HAS_C_COMPILER', True)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: machine.available)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda index: f'GPU number {index}')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index: (7, 5))
    monkeypatch.setattr(torch.ops.mmdefocus, 'missing_cuda_kernels', lambda index: machine.missing, raising=False)
    backends._no_kernels_for_gpu.cache_clear()
    yield machine
    backends._no_kernels_for_gpu.cache_clear()


def test_backends_are_listed_fastest_first():
    assert list(available_backends()) == ['cuda', 'triton', 'mamba_ssm', 'cpp', 'reference']


@pytest.mark.parametrize(
    ('device', 'dtype', 'expected'),
    [
        (GPU, torch.bfloat16, 'cuda'),
        (GPU, torch.float32, 'cuda'),
        (torch.device('cuda'), None, 'cuda'),
        (GPU, torch.float64, 'reference'),
        (CPU, torch.float32, 'cpp'),
        (torch.device('mps'), torch.float32, 'reference'),
    ],
)
def test_fastest_backend_that_can_run_is_chosen(gpu_machine, device, dtype, expected):
    assert choose_backend(None, device, dtype) == expected


def test_unsupported_arguments_select_the_next_backend(gpu_machine):
    unsupported = {'cuda': 'its kernels are too narrow', 'cpp': None}
    assert choose_backend(None, GPU, torch.float32, unsupported=unsupported) == 'triton'
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run: its kernels are too narrow"):
        choose_backend('cuda', GPU, torch.float32, unsupported=unsupported)
    assert choose_backend(None, GPU, torch.float32, ('cpp', 'reference')) == 'reference'


@pytest.mark.parametrize(
    ('device', 'dtype', 'changes', 'reason'),
    [
        (GPU, torch.float32, {}, None),
        (None, None, {}, None),
        (CPU, torch.float32, {}, 'its kernels run on CUDA tensors, got tensors on cpu'),
        (GPU, torch.float64, {}, 'its kernels compute in float32, got float64'),
        (GPU, torch.float32, {'available': False}, 'torch finds no CUDA GPU'),
        (None, None, {'available': False}, 'torch finds no CUDA GPU'),
    ],
)
def test_reasons_against_cuda(gpu_machine, device, dtype, changes, reason):
    vars(gpu_machine).update(changes)
    assert can_run_cuda(device, dtype) == reason


def test_missing_kernels_for_the_gpu_are_reported(gpu_machine):
    gpu_machine.missing = 'no kernel image is available for execution on the device'
    reason = can_run_cuda(torch.device('cuda', 3))
    assert reason.startswith('the extension has no kernels for GPU number 3 (no kernel image is available')
    assert 'TORCH_CUDA_ARCH_LIST=7.5 FORCE_CUDA=1 pip install' in reason
    assert choose_backend(None, GPU, torch.float32, ('cuda', 'reference')) == 'reference'


def test_triton_runs_on_gpu_tensors_and_in_its_interpreter(gpu_machine, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    assert can_run_triton(GPU, torch.bfloat16) is None
    assert can_run_triton(GPU, torch.float64) == 'its kernels compute in float32, got float64'
    assert 'run on GPU tensors, got tensors on cpu (TRITON_INTERPRET=1' in can_run_triton(CPU, torch.float32)
    gpu_machine.available = False
    assert can_run_triton() == 'torch finds no GPU'
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    assert can_run_triton(CPU, torch.float32) is None
    monkeypatch.setattr(backends, '_HAS_TRITON', False)
    assert can_run_triton(GPU) == 'Triton is not installed; "pip install triton" installs it'


def test_triton_needs_a_c_compiler_to_launch(gpu_machine, monkeypatch):
    monkeypatch.setattr(backends, '_HAS_C_COMPILER', False)
    assert can_run_triton(GPU).startswith('it needs a C compiler and the C headers of Python to launch kernels')
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    assert can_run_triton(CPU) is None


def test_triton_is_chosen_for_gpus_without_cuda_kernels(gpu_machine, monkeypatch):
    gpu_machine.missing = 'no kernel image is available for execution on the device'
    assert choose_backend(None, GPU, torch.bfloat16) == 'triton'
    assert choose_backend(None, GPU, torch.float64) == 'reference'
    monkeypatch.setattr(backends, '_BUILT_WITH_CUDA', False)
    assert choose_backend(None, GPU, torch.bfloat16) == 'triton'
    monkeypatch.setattr(backends, '_HAS_TRITON', False)
    assert choose_backend(None, GPU, torch.bfloat16, ('cuda', 'triton', 'reference')) == 'reference'


def test_triton_interpreter_runs_only_by_name(monkeypatch):
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    assert choose_backend(None, CPU, torch.float32) != 'triton'
    assert choose_backend('triton', CPU, torch.float32) == 'triton'
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'triton')
    assert choose_backend(None, CPU, torch.float32) == 'triton'


def test_extension_without_cuda_is_reported(monkeypatch):
    monkeypatch.setattr(backends, '_NO_EXTENSION', None)
    monkeypatch.setattr(backends, '_BUILT_WITH_CUDA', False)
    with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot run: .* is built without CUDA; .*FORCE_CUDA=1 pip"):
        choose_backend('cuda', GPU)
    monkeypatch.setattr(backends, '_NO_EXTENSION', 'the extension is not built')
    for name in ('cuda', 'cpp'):
        assert available_backends()[name] == 'the extension is not built'
    assert choose_backend(None, CPU, torch.float32, ('cpp', 'reference')) == 'reference'
    monkeypatch.setattr(backends, '_HAS_TRITON', False)
    assert 'pip install triton' in available_backends()['triton']
    assert available_backends()['reference'] is None


def test_environment_variable_names_a_backend(gpu_machine, monkeypatch):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    assert choose_backend(None, GPU) == 'reference'
    assert choose_backend('cuda', GPU) == 'cuda'
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'cuda')
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run: its kernels run on CUDA tensors"):
        choose_backend(None, CPU)
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'gpu')
    with pytest.raises(
        ValueError, match=r"MMDEFOCUS_BACKEND .* one of cuda, triton, mamba_ssm, cpp, reference, got 'gpu'"
    ):
        choose_backend(None, CPU)


def test_named_backend_overrides_a_wrong_environment_variable(monkeypatch):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'gpu')
    assert requested_backend('reference', CPU) == 'reference'


def test_named_backend_must_support_the_type(gpu_machine):
    assert choose_backend('triton', GPU, torch.float32) == 'triton'
    for choose in (choose_backend, requested_backend):
        with pytest.raises(RuntimeError, match=r"backend 'triton' cannot run: .*float64"):
            choose('triton', GPU, torch.float64)


def test_environment_variable_is_ignored_by_operators_without_the_backend(gpu_machine, monkeypatch):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'cuda')
    assert requested_backend(None, CPU, implemented=('reference',)) is None
    assert choose_backend(None, CPU, implemented=('cpp', 'reference')) == 'cpp'
    monkeypatch.delenv('MMDEFOCUS_BACKEND')
    assert requested_backend(None, CPU) is None


def test_named_backend_without_the_operator_raises(gpu_machine):
    with pytest.raises(RuntimeError, match="backend 'cuda' does not have this operator; those that do: cpp, reference"):
        choose_backend('cuda', GPU, implemented=('cpp', 'reference'))


@pytest.mark.parametrize(('limits', 'group_size'), [(CUDA_LIMITS, 64), (TRITON_LIMITS, 128)])
def test_limits_of_gpu_kernels(limits: KernelLimits, group_size):
    assert limits.unsupported_scan(32, group_size) is None
    assert limits.unsupported_scan(34, 64) == 'its kernels take a state of up to 32, got 34'
    message = f'its kernels take a group_size of up to {group_size}, got {group_size + 2}'
    assert limits.unsupported_scan(16, group_size + 2) == message
    assert limits.unsupported_convolution(4) is None
    assert limits.unsupported_convolution(5) == 'its kernels take a width of up to 4, got 5'


def test_compiled_code_chooses_the_backend_of_eager_code(monkeypatch):
    """A build with CUDA on this machine: torch.compile must not count on kernels that an eager call finds missing."""
    monkeypatch.setattr(backends, '_BUILT_WITH_CUDA', True)
    monkeypatch.setattr(torch.ops.mmdefocus, 'missing_cuda_kernels', lambda index: 'no kernel image', raising=False)
    names = ('cuda', 'cpp', 'reference')

    def add_backend(x):
        return x + names.index(choose_backend(None, GPU, torch.bfloat16, names))

    eager = add_backend(torch.zeros(1))
    assert names[int(eager)] == 'reference'
    assert torch.equal(torch.compile(add_backend, backend='eager', fullgraph=True)(torch.zeros(1)), eager)
