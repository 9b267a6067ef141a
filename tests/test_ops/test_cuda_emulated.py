"""The CUDA kernels and their host functions, emulated on the CPU by `cuda_emulation/`, against the reference.

docs/cuda.md lists the properties that the emulation verifies and those that need a GPU.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_cases import ConvCases, ScanCases, SegmentCases, make_conv_arguments, make_scan_arguments, run_conv, run_scan
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdefocus.ops import backends
from mmdefocus.ops.kernel_limits import CUDA_LIMITS

H200 = 132  # multiprocessors
SCAN = ('u', 'dt', 'A', 'B', 'C', 'D', 'z', 'dt_bias', 'freq', 'positions', 'initial_state')


@pytest.fixture(scope='module')
def emulated():
    sys.path.insert(0, str(Path(__file__).parent / 'cuda_emulation'))
    return importlib.import_module('emulated')


@pytest.fixture(autouse=True)
def ops(emulated, monkeypatch):
    """Make the backend 'cuda' run emulated kernels on CPU tensors. With one multiprocessor no sequence is cut."""
    monkeypatch.setitem(backends._PREDICATES, 'cuda', lambda device, dtype: None)
    for name in ('defocus_scan', 'causal_conv1d'):
        module = importlib.import_module(f'mmdefocus.ops.{name}')
        monkeypatch.setitem(module._IMPLEMENTATIONS, 'cuda', getattr(emulated, name))
    emulated.OPS.set_multiprocessors(1)
    emulated.OPS.seed(0)
    return emulated.OPS


@pytest.fixture
def cut(ops):
    ops.set_multiprocessors(H200)


@pytest.fixture
def device():
    return 'cpu'


class TestScan(ScanCases):
    pass


class TestSegments(SegmentCases):
    pass


class TestConv(ConvCases):
    pass


@pytest.mark.parametrize('length', (40, 300))
def test_results_do_not_depend_on_the_schedule(ops, cut, length):
    """With a missing barrier, some schedule reads a value before it is written."""
    torch.manual_seed(3)
    arguments = make_scan_arguments(batch=1, channels=72, length=length)
    expected = run_scan(arguments, 'cuda')
    for seed in range(1, 5):
        ops.seed(seed)
        for name, result in run_scan(arguments, 'cuda').items():
            assert torch.equal(result, expected[name]), name


def test_the_emulation_finds_a_missing_barrier(ops):
    expected = torch.arange(64.0).flip(0)
    results = []
    for seed in range(8):
        ops.seed(seed)
        assert torch.equal(ops.reverse_in_shared_memory(True), expected)
        results.append(torch.equal(ops.reverse_in_shared_memory(False), expected))
    assert not any(results)


@pytest.mark.parametrize(
    ('length', 'thread_blocks', 'multiprocessors', 'steps'),
    [
        (197, 64 * 24, 132, 224),  # enough thread blocks, no cut
        (577, 16 * 24, 132, 608),
        (4705, 132, 132, 4736),
        (4705, 2 * 24, 132, 448),  # 11 segments
        (4705, 24, 132, 256),  # limited by the shortest segment
        (577, 24, 132, 256),
        (200, 1, 132, 224),
        (1, 1, 132, 32),
    ],
)
def test_segment_steps(length, thread_blocks, multiprocessors, steps):
    assert torch.ops.mmdefocus.gpu_segment_steps(length, thread_blocks, multiprocessors) == steps


def test_segment_steps_refuses_sizes_below_one():
    with pytest.raises(RuntimeError, match='gpu_segment_steps: expected positive arguments, got 0, 1, 132, 32 and 256'):
        torch.ops.mmdefocus.gpu_segment_steps(0, 1, 132)


@pytest.mark.parametrize('dimension', (0, 1))
def test_strides_beyond_32_bits(dimension):
    """Two sequences, or two tokens, 2³¹ elements apart; of the reserved memory, only a few pages are touched."""
    apart = 2**31 + 64
    torch.manual_seed(3)
    plain = make_scan_arguments(batch=2 - dimension, channels=8, length=2)
    memory = torch.from_numpy(np.empty(apart + 4096, dtype=np.float16))
    far = dict(plain)
    for index, name in enumerate(('u', 'dt', 'z', 'B', 'C')):
        value = plain[name].detach().half()
        plain[name] = value.clone().requires_grad_()
        strides = (apart, 32, 1) if dimension == 0 else (2 * apart, apart, 1)
        far[name] = memory.as_strided(value.shape, strides, 64 * index).copy_(value).requires_grad_()
    expected = run_scan(plain, 'cuda')
    for name, result in run_scan(far, 'cuda').items():
        assert torch.equal(result, expected[name]), name


def test_states_are_saved_before_every_chunk(ops):
    arguments = make_scan_arguments(length=33)
    _, _, chunk_states, *_ = ops.defocus_scan(*(arguments[name] for name in SCAN), 2.0, 8, 1e-6)
    assert chunk_states.shape == (2, -(-33 // backends.KERNEL_CONSTANTS['cuda_scan_chunk']), 24, 16)
    assert torch.equal(chunk_states[:, 0], arguments['initial_state'])


def scan_calls():
    """Yield (operator, arguments), forward and backward, with all arguments and without the optional ones."""
    for absent in ((), ('freq', 'positions', 'initial_state')):
        values = {**make_scan_arguments(), **dict.fromkeys(absent)}
        arguments = [None if values[name] is None else values[name].detach() for name in SCAN] + [2.0, 8, 1e-6]
        yield 'defocus_scan', arguments
        y, state, *saved = torch.ops.mmdefocus_emulated.defocus_scan(*arguments)
        yield 'defocus_scan_backward', [y, None if absent else state, *arguments, *saved]


def conv_calls():
    for bias in (True, False):
        x, *parameters = [None if a is None else a.detach() for a in make_conv_arguments(bias=bias)]
        for tensor in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            yield 'causal_conv1d', [tensor, *parameters, True]
            yield 'causal_conv1d_backward', [x, tensor, *parameters, True]


@pytest.mark.parametrize('calls', (scan_calls, conv_calls))
def test_results_have_the_shapes_of_the_fake_kernels(ops, calls):
    def describe(results):
        results = (results,) if isinstance(results, torch.Tensor) else results
        return [(result.shape, result.stride(), result.dtype) for result in results]

    for name, arguments in calls():
        expected = describe(getattr(ops, name)(*arguments))
        with FakeTensorMode():
            on_gpu = [
                torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device='cuda') if torch.is_tensor(a) else a
                for a in arguments
            ]
            assert describe(getattr(torch.ops.mmdefocus, name)(*on_gpu)) == expected, name


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'u': torch.zeros(2, 8)}, r'expected u of shape \(B, L, E\) with L > 0 and E > 0, got \[2, 8\]'),
        ({'u': torch.zeros(2, 0, 8)}, r'L > 0 and E > 0, got \[2, 0, 8\]'),
        ({'u': torch.zeros(2, 3, 8).bfloat16()}, 'expected dt as BFloat16 on cpu, got Float on cpu'),
        ({'z': torch.zeros(2, 3, 9)}, r'expected z of shape \[2, 3, 8\], got \[2, 3, 9\]'),
        ({'A': torch.zeros(8)}, r'expected A of shape \(E, N\), got \[8\]'),
        (
            {'A': torch.zeros(8, 0), 'B': torch.zeros(2, 3, 0), 'C': torch.zeros(2, 3, 0)}
            | dict.fromkeys(('freq', 'positions', 'initial_state')),
            f'take a state of 1 to {CUDA_LIMITS.max_state}, got 0',
        ),
        ({'A': torch.zeros(8, 4).double()}, 'expected A as Float on cpu, got Double on cpu'),
        ({'D': torch.zeros(7)}, r'expected D of shape \[8\], got \[7\]'),
        ({'C': torch.zeros(2, 3, 5)}, r'expected C of shape \[2, 3, 4\], got \[2, 3, 5\]'),
        ({'positions': None}, 'expected positions along with freq'),
        ({'positions': torch.zeros(4)}, r'expected positions of shape \[3\], got \[4\]'),
        ({'initial_state': torch.zeros(2, 4, 8)}, r'expected initial_state of shape \[2, 8, 4\], got \[2, 4, 8\]'),
        ({'group_size': 3}, 'expected a group_size that divides the 8 channels, got 3'),
    ],
)
def test_direct_calls_of_the_scan_are_safe(ops, changes, message):
    arguments = make_scan_arguments(channels=8, length=3, state=4)
    values = {name: arguments[name] for name in SCAN} | {'delta_scale': 2.0, 'group_size': 8, 'eps': 1e-6}
    with pytest.raises(RuntimeError, match=message):
        ops.defocus_scan(**values | changes)


def test_direct_calls_beyond_the_limits(ops):
    wide = make_scan_arguments(channels=130, length=3, state=CUDA_LIMITS.max_state + 2)
    message = f'take a state of 1 to {CUDA_LIMITS.max_state}, got {CUDA_LIMITS.max_state + 2}'
    with pytest.raises(RuntimeError, match=message):
        ops.defocus_scan(*(wide[name] for name in SCAN), 2.0, 65, 1e-6)
    coarse = make_scan_arguments(channels=130, length=3)
    with pytest.raises(RuntimeError, match=f'take a group_size of up to {CUDA_LIMITS.max_group_size}, got 65'):
        ops.defocus_scan(*(coarse[name] for name in SCAN), 2.0, 65, 1e-6)
    exact = make_scan_arguments(length=3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r'expected A as Float on cpu, got Double on cpu'):
        ops.defocus_scan(*(exact[name] for name in SCAN), 2.0, 8, 1e-6)
    x, weight, bias = make_conv_arguments(width=CUDA_LIMITS.max_width + 1)
    with pytest.raises(
        RuntimeError, match=rf'K of 1 to {CUDA_LIMITS.max_width}, got \[40, {CUDA_LIMITS.max_width + 1}\]'
    ):
        ops.causal_conv1d(x, weight, bias, True)


@pytest.mark.parametrize(
    ('index', 'value', 'message'),
    [
        (0, torch.zeros(2, 40), r'expected x of shape \(B, E, L\) with E > 0 and L > 0, got \[2, 40\]'),
        (0, torch.zeros(2, 40, 0), r'with E > 0 and L > 0, got \[2, 40, 0\]'),
        (0, torch.zeros(2, 40, 5).double(), 'take float16, bfloat16 or float32, got Double'),
        (1, torch.zeros(39, 4), r'expected weight of shape \[40, 4\], got \[39, 4\]'),
        (2, torch.zeros(40).half(), 'expected bias as Float on cpu, got Half on cpu'),
    ],
)
def test_direct_calls_of_the_convolution_are_safe(ops, index, value, message):
    arguments = [tensor.detach() for tensor in make_conv_arguments(length=5)]
    arguments[index] = value
    with pytest.raises(RuntimeError, match=message):
        ops.causal_conv1d(*arguments, True)


def test_direct_calls_of_the_backward_pass_are_safe(ops):
    arguments = [make_scan_arguments(length=3)[name] for name in SCAN]
    y, state, *saved = ops.defocus_scan(*arguments, 2.0, 8, 1e-6)
    chunk_states, normed, inverse_rms = saved
    for grad_y, grad_state, given, message in (
        (y.double(), state, saved, 'expected grad_y as Float on cpu'),
        (y, state[:1], saved, r'expected grad_last_state of shape \[2, 24, 16\], got \[1, 24, 16\]'),
        (y, state, (chunk_states[:, :0], *saved[1:]), r'chunk_states of shape \[2, 1, 24, 16\], got \[2, 0, 24, 16\]'),
        (y, state, (chunk_states, normed.half(), inverse_rms), 'expected normed as Float on cpu, got Half on cpu'),
        (y, state, (chunk_states, normed, inverse_rms[:1]), r'inverse_rms of shape \[2, 3, 3\], got \[1, 3, 3\]'),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.defocus_scan_backward(grad_y, grad_state, *arguments, 2.0, 8, 1e-6, *given)
    x, weight, bias = (tensor.detach() for tensor in make_conv_arguments())
    with pytest.raises(RuntimeError, match=r'expected grad_y of shape \[2, 40, 70\], got \[2, 40, 1\]'):
        ops.causal_conv1d_backward(x[..., :1], x, weight, bias, True)


def test_convolution_does_not_depend_on_the_schedule(ops):
    torch.manual_seed(3)
    arguments = make_conv_arguments()
    expected = run_conv(arguments, 'silu', 'cuda')
    ops.seed(1)
    for result, other in zip(run_conv(arguments, 'silu', 'cuda'), expected, strict=True):
        assert torch.equal(result, other)


def test_accesses_to_shared_rows_use_every_bank_once(ops):
    """Of 32 banks. A warp loads 16 bytes per lane by quarters, 8 bytes by halves, and 4 bytes at once."""
    positions, row = ops.row_layout()
    by_rows = [(8 * torch.arange(8) + half)[:, None] + torch.arange(4) for half in (0, 4)]
    by_states = [first + torch.arange(32) for first in (0, 32)]
    for accessed in (*by_rows, *by_states):
        assert (positions[accessed] % 32).unique().numel() == 32
    for first in range(0, 64, 8):  # the sums for the norm: eight channels of four steps
        places = torch.arange(4)[:, None] * row + positions[first + torch.arange(8)]
        assert (places % 32).unique().numel() == 32
    assert positions.unique().numel() == 64
    assert positions.max() < row
    assert (positions[::4] % 4 == 0).all(), 'loads of 16 bytes are aligned'
    assert (positions.view(-1, 4).diff() == 1).all(), 'and of neighbouring channels'
