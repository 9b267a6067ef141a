"""Tests of the compiled fused scan as a torch operator: registration, tracing, memory, determinism, argument checks."""

import numpy as np
import pytest
import torch
from test_defocus_scan import ACTIVATIONS, NAMES, OPTIONS, make, run
from tolerances import GRADIENT, assert_close

from mmdefocus.ops import defocus_scan

ARGUMENTS = ('u', 'dt', 'A', 'B', 'C', 'D', 'z', 'dt_bias', 'freq', 'positions', 'initial_state')
RAW_OPTIONS = (2.0, 8, 1e-6)
forward_op = torch.ops.mmdefocus.defocus_scan.default
backward_op = torch.ops.mmdefocus.defocus_scan_backward.default


def raw(arguments, dtype=None):
    """Return the tensors in the order of the operator's schema, with activations cast to ``dtype`` if it is given."""
    cast = lambda name, x: x.detach().to(dtype).requires_grad_() if dtype and name in ACTIVATIONS else x  # noqa: E731
    return [None if arguments[name] is None else cast(name, arguments[name]) for name in ARGUMENTS]


@pytest.mark.parametrize('absent', [(), ('freq', 'positions', 'initial_state')])
@pytest.mark.parametrize('dtype', (torch.float32, torch.float64, torch.bfloat16))
def test_opcheck(dtype, absent):
    arguments = make(dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    tensors = raw({**arguments, **dict.fromkeys(absent)}, dtype)
    torch.library.opcheck(forward_op, (*tensors, *RAW_OPTIONS))
    detached = [None if x is None else x.detach() for x in tensors]
    y, last_state, *saved = forward_op(*detached, *RAW_OPTIONS)
    for grad_last_state in (None, torch.randn_like(last_state)):
        grad_outputs = (torch.randn_like(y).transpose(0, 1).contiguous().transpose(0, 1), grad_last_state)
        torch.library.opcheck(backward_op, (*grad_outputs, *detached, *RAW_OPTIONS, *saved))


def test_compiles_without_graph_break():
    arguments = make(length=17)

    def function(**tensors):
        y, last_state = defocus_scan(**tensors, **OPTIONS, return_last_state=True)
        return y.square().sum() + last_state.sum()

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    inputs = [arguments[name] for name in NAMES]
    actual = torch.autograd.grad(compiled(**arguments), inputs)
    for gradient, expected in zip(actual, torch.autograd.grad(function(**arguments), inputs), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_double_backward_raises():
    arguments = make(length=4)
    y = defocus_scan(**arguments, **OPTIONS, backend='cpp')
    (gradient,) = torch.autograd.grad(y.square().sum(), arguments['dt'], create_graph=True)
    with pytest.raises(RuntimeError, match=r'defocus_scan: only the reference supports double backward'):
        gradient.sum().backward()


def run_with_threads(counts, arguments):
    """Return outputs and gradients for each number of threads."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in counts:
            torch.set_num_threads(count)
            outputs, gradients = run(arguments, 'cpp', group_size=64)
            results.append(outputs | gradients)
    finally:
        torch.set_num_threads(threads)
    return results


def test_result_is_independent_of_the_number_of_threads_without_segments():
    arguments = make(batch=1, channels=192, length=2100)
    first, *others = run_with_threads((1, 2, 3, 8), arguments)
    for other in others:
        for name, expected in first.items():
            assert torch.equal(other[name], expected), name


@pytest.mark.parametrize(('batch', 'length', 'threads'), [(1, 2100, 8), (1, 768, 3), (2, 1000, 64)])
def test_segments_of_a_sequence_equal_the_whole_sequence(batch, length, threads):
    arguments = make(batch, channels=64, length=length, dtype=torch.float64)
    with torch.no_grad():
        arguments['A'] *= 1e-3  # slow decay: the initial state of a segment must affect its end
    expected, actual, repeated = run_with_threads((1, threads, threads), arguments)
    assert not torch.equal(actual['y'], expected['y'])  # different rounding proves that segments were used
    for name in expected:
        assert_close(actual[name], expected[name], GRADIENT[torch.float64], name)
        assert torch.equal(actual[name], repeated[name]), name


def test_saves_only_inputs_and_chunk_states():
    batch, channels, state, length = 1, 64, 16, 512
    arguments = make(batch, channels, length, state)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        y = defocus_scan(**arguments, **OPTIONS, backend='cpp')
    given = {x.data_ptr() for x in arguments.values()}
    (own,) = [x for x in saved if x.numel() > 0 and x.data_ptr() not in given]
    assert own.shape == (batch, length // 32, state, channels)
    grad_output = torch.ones_like(y)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        y.backward(grad_output)
    allocations = [event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage > 0]
    assert max(allocations) == y.numel() * y.itemsize  # the gradients of u, dt and z are the largest
    assert sum(allocations) <= 6 * y.numel() * y.itemsize


@pytest.mark.parametrize('dimension', (0, 1))
def test_offsets_beyond_32_bits(dimension):
    """Two sequences, or two tokens, are 2³¹ elements apart; the memory between them is reserved but not touched."""
    apart = 2**31 + 64
    plain = make(batch=2 - dimension, channels=8, length=2)
    memory = torch.from_numpy(np.empty(apart + 4096, dtype=np.float16))
    far = dict(plain)
    for index, name in enumerate(ACTIVATIONS):
        plain[name] = plain[name].detach().half().requires_grad_()
        strides = (apart, 32, 1) if dimension == 0 else (2 * apart, apart, 1)
        view = memory.as_strided(plain[name].shape, strides, 64 * index)
        far[name] = view.copy_(plain[name].detach()).requires_grad_()
    for actual, expected in zip(run(far, 'cpp'), run(plain, 'cpp'), strict=True):
        for name in expected:
            assert torch.equal(actual[name], expected[name]), name


@pytest.mark.parametrize('name', ('u', 'dt', 'B', 'C', 'z'))
def test_nan_propagates_only_to_dependent_values(name):
    arguments = {key: value.detach() for key, value in make(length=40).items()}
    arguments[name][0, 10, 3] = torch.nan
    y, state = defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend='cpp')
    expected, expected_state = defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend='reference')
    assert torch.equal(y.isnan(), expected.isnan())
    assert torch.equal(state.isnan(), expected_state.isnan())
    assert expected.isnan().any()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'u': torch.zeros(2, 8)}, r'expected u of shape \(B, L, E\) with L > 0, got \[2, 8\]'),
        ({'u': torch.zeros(2, 0, 8)}, r'with L > 0, got \[2, 0, 8\]'),
        ({'u': torch.zeros(2, 3, 8, dtype=torch.int32)}, 'expected float16, bfloat16, float32 or float64, got Int'),
        ({'u': torch.zeros(2, 3, 8).bfloat16()}, 'expected dt as BFloat16 on cpu, got Float on cpu'),
        ({'z': torch.zeros(2, 3, 9)}, r'expected z of shape \[2, 3, 8\], got \[2, 3, 9\]'),
        ({'A': torch.zeros(8)}, r'expected A of shape \(E, N\) with N > 0, got \[8\]'),
        ({'A': torch.zeros(8, 0)}, r'expected A of shape \(E, N\) with N > 0, got \[8, 0\]'),
        ({'A': torch.zeros(8, 4).double()}, 'expected A as Float on cpu, got Double on cpu'),
        ({'D': torch.zeros(7)}, r'expected D of shape \[8\], got \[7\]'),
        ({'C': torch.zeros(2, 3, 5)}, r'expected C of shape \[2, 3, 4\], got \[2, 3, 5\]'),
        ({'positions': None}, 'expected positions with freq'),
        ({'positions': torch.zeros(4)}, r'expected positions of shape \[3\], got \[4\]'),
        ({'initial_state': torch.zeros(2, 4, 8)}, r'expected initial_state of shape \[2, 8, 4\], got \[2, 4, 8\]'),
        ({'group_size': 3}, 'expected a group_size that divides 8 channels, got 3'),
    ],
)
def test_direct_calls_check_arguments(changes, message):
    arguments = make(channels=8, length=3, state=4)
    values = {name: arguments[name] for name in ARGUMENTS} | {'delta_scale': 2.0, 'group_size': 8, 'eps': 1e-6}
    with pytest.raises(RuntimeError, match=message):
        forward_op(**values | changes)


def test_direct_backward_calls_check_arguments():
    arguments = [x.detach() for x in raw(make(length=3))]
    y, state, chunk_states, *empty = forward_op(*arguments, *RAW_OPTIONS)
    for grad_y, grad_state, chunks, message in (
        (y.double(), state, chunk_states, 'expected grad_y as Float on cpu'),
        (y, state[:1], chunk_states, r'expected grad_last_state of shape \[2, 24, 16\], got \[1, 24, 16\]'),
        (y, state, chunk_states[:, :0], r'expected chunk_states of shape \[2, 1, 16, 24\], got \[2, 0, 16, 24\]'),
    ):
        with pytest.raises(RuntimeError, match=message):
            backward_op(grad_y, grad_state, *arguments, *RAW_OPTIONS, chunks, *empty)
