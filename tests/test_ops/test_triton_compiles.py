"""Tests that Triton compiles the kernels, as they are launched, to machine code for a GPU that need not be present.

Triton's interpreter accepts types and instructions that the compiler rejects. Arguments are CPU tensors, because the
compiler needs only their types and alignment.
"""

import re
from types import SimpleNamespace

import pytest
import torch
from test_bandpass_attention import make as make_attention
from test_causal_conv1d import make as make_conv
from test_defocus_scan import ACTIVATIONS, NAMES
from test_defocus_scan import make as make_scan
from test_neighbourhood_attention import make as make_map
from triton.backends.compiler import GPUTarget
from triton.runtime import jit

from mmdefocus.ops.bandpass import triton as bandpass_triton
from mmdefocus.ops.bandpass.registration import attend_triton
from mmdefocus.ops.causal_conv1d.registration import causal_conv1d_triton
from mmdefocus.ops.defocus_scan import _IMPLEMENTATIONS, triton
from mmdefocus.ops.defocus_scan.arguments import ScanTensors
from mmdefocus.ops.neighbourhood_attention.registration import attend_triton as attend_neighbours

LARGEST_GRID = (2**31 - 1, 65535, 65535)  # of any NVIDIA GPU


class AbsentGPU:
    """Driver of an H200, reduced to the calls that a launch makes until compilation is done."""

    def get_current_target(self):
        return GPUTarget('cuda', 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch):
    """Make launches compile only; return the compiled kernels by name."""
    kernels = {}
    run = jit.JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **options):
        assert all(size <= most for size, most in zip(grid, LARGEST_GRID, strict=False)), grid
        kernels[kernel.__name__] = run(kernel, *arguments, grid=grid, warmup=True, **options)

    monkeypatch.setattr(jit.JITFunction, 'run', compile_only)
    monkeypatch.setattr(jit, 'driver', SimpleNamespace(active=AbsentGPU()))
    monkeypatch.setattr(triton, 'multiprocessors', lambda device: 132)
    return kernels


def check(kernels, names):
    assert set(kernels) == set(names)
    for name, kernel in kernels.items():
        assert '.target sm_90' in kernel.asm['ptx'], name
        assert kernel.asm['cubin'], name


@pytest.mark.parametrize(
    ('dtype', 'sizes', 'group_size'),
    [
        (torch.bfloat16, dict(channels=128, length=200), 64),
        (torch.float16, dict(channels=24, length=200, state=6), 8),
        (torch.float32, dict(channels=256, length=200, state=32), 128),
    ],
)
def test_scan(compiled, dtype, sizes, group_size):
    arguments = make_scan(**sizes)
    for name in ACTIVATIONS:
        arguments[name] = arguments[name].detach().to(dtype).requires_grad_()
    results = _IMPLEMENTATIONS['triton'](ScanTensors(**arguments), 2.0, group_size, 1e-6)
    torch.autograd.grad(results, [arguments[name] for name in NAMES], [torch.zeros_like(x) for x in results])
    check(compiled, ('local_final_states', 'pass_states', 'forward', 'local_state_gradients', 'backward'))
    for name in ('local_final_states', 'forward', 'local_state_gradients', 'backward'):
        # Token indices, and so all offsets that are computed from them, have 64 bits.
        assert set(re.findall(r'scf\.for .* : (i\d+)', compiled[name].asm['ttir'])) == {'i64'}, name
    rounded = {torch.bfloat16: 'cvt.rn.bf16', torch.float16: 'cvt.rn.f16', torch.float32: 'st.global'}
    assert rounded[dtype] in compiled['forward'].asm['ptx']


def test_scan_of_one_token_and_channel(compiled):
    """Triton specialises on sizes of 1, which become constants."""
    arguments = make_scan(batch=1, channels=1, length=1, state=1) | {'freq': None, 'positions': None}
    results = _IMPLEMENTATIONS['triton'](ScanTensors(**arguments), 2.0, 1, 1e-6)
    inputs = [arguments[name] for name in NAMES if arguments[name] is not None]
    torch.autograd.grad(results, inputs, [torch.zeros_like(x) for x in results])
    check(compiled, ('forward', 'backward'))


@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float32))
@pytest.mark.parametrize('width', (1, 4))
def test_convolution(compiled, dtype, width):
    x, weight, bias = make_conv(channels=64, length=40, width=width)
    rows = x.detach().to(dtype).transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    y = causal_conv1d_triton(rows, weight, bias, True)
    torch.autograd.grad(y, [rows, weight, bias], torch.zeros_like(y))
    check(compiled, ('forward', 'backward'))


def test_bandpass_attention(compiled):
    """Only in bfloat16, because float32 uses no matrix instructions and takes a minute to compile."""
    arguments = make_attention(batch=1, heads=1, length=70, channels=64, values=64)
    q, k, v = (arguments[name].detach().bfloat16().requires_grad_() for name in 'qkv')
    inputs = [q, k, v, torch.rand(1, 1, 70, 1, requires_grad=True), torch.rand(1, 64, requires_grad=True)]
    y, *_ = attend_triton(*inputs, causal=False)
    torch.autograd.grad(y, inputs, torch.zeros_like(y))
    check(compiled, ('forward', 'backward_queries', 'backward_keys'))


@pytest.mark.parametrize(
    ('dtype', 'sizes'),
    [
        (torch.bfloat16, (14, 14, 7, 1, 2, 32)),
        (torch.float32, (14, 14, 7, 1, 2, 32)),
        (torch.float16, (1, 1, 1, 1, 1, 1)),
    ],
)
def test_neighbourhood_attention(compiled, dtype, sizes):
    arguments = make_map(*sizes)
    inputs = [arguments[name].detach().to(dtype).requires_grad_() for name in 'qkv'] + [arguments['bias']]
    y, _ = attend_neighbours(*inputs, sizes[2], 0.5)
    torch.autograd.grad(y, inputs, torch.zeros_like(y))
    check(compiled, ('forward', 'backward_queries', 'backward_keys'))
    rounded = {torch.bfloat16: 'cvt.rn.bf16', torch.float16: 'cvt.rn.f16', torch.float32: 'st.global'}
    assert rounded[dtype] in compiled['forward'].asm['ptx']


def test_more_heads_than_the_second_dimension_of_a_grid_takes(compiled, monkeypatch):
    monkeypatch.setattr(bandpass_triton, 'TRITON_BLOCK', 16)  # the intra-block logits are really computed
    q, own, decay = torch.zeros(35_000, 2, 1, 2), torch.zeros(35_000, 2, 1, 1), torch.zeros(2, 2)
    attend_triton(q, q, q, own, decay, causal=True)
    check(compiled, ('forward',))
