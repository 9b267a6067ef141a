"""Tests of the Triton kernels of the De-focus scan in Triton's interpreter; `test_triton.py` runs this file.

Sizes are small because the interpreter takes about 30 ms per token. `gpu/test_defocus_scan_triton.py` runs the cases of
the CUDA kernels with the Triton kernels on a GPU.
"""

import math

import numpy as np
import pytest
import torch
from cuda_cases import assert_equals_reference, options_of_width, run_scan
from test_defocus_scan import ACTIVATIONS, NAMES, OPTIONS, make
from tolerances import FORWARD, GRADIENT, HALF, assert_close
from torch.utils.flop_counter import FlopCounterMode

from mmdefocus.ops import defocus_scan
from mmdefocus.ops.defocus_scan import _IMPLEMENTATIONS, triton
from mmdefocus.ops.defocus_scan.arguments import TRITON_CHUNK
from mmdefocus.ops.selective_scan.registration import selective_scan_backward_flops, selective_scan_flops

FLOAT = torch.float32
CPU = torch.device('cpu')


@pytest.fixture
def cut(monkeypatch):
    """Simulate a GPU with more multiprocessors than programs, and allow segments of one chunk."""
    monkeypatch.setattr(triton, 'multiprocessors', lambda device: 132)
    monkeypatch.setattr(triton, 'MIN_SEGMENT', TRITON_CHUNK)


@pytest.mark.parametrize('length', (1, 2, 8, 15, 16, 17, 33))
def test_every_length(length):
    assert_equals_reference(make(batch=1, length=length), CPU, 'triton')


@pytest.mark.parametrize(
    ('channels', 'group_size', 'state'), [(2, 1, 1), (6, 2, 5), (72, 8, 6), (64, 64, 16), (130, 65, 18), (100, 50, 32)]
)
def test_every_width(channels, group_size, state):
    arguments = make(batch=1, channels=channels, length=4, state=state)
    if state % 2:
        arguments |= {'freq': None, 'positions': None}
    rows = ('narrow norm',) if group_size == 1 else ()
    assert_equals_reference(arguments, CPU, 'triton', *rows, **options_of_width(state, group_size))


@pytest.mark.parametrize('absent', [('freq', 'positions'), ('positions',), ('initial_state',)])
def test_without(absent):
    assert_equals_reference({**make(length=5), **dict.fromkeys(absent)}, CPU, 'triton')


@pytest.mark.parametrize('length', (32, 41))
def test_segments(cut, length):
    assert_equals_reference(make(batch=1, length=length), CPU, 'triton')


def test_segments_of_several_blocks_and_sequences(cut):
    arguments = make(channels=72, length=18, state=6)
    assert_equals_reference({**arguments, 'initial_state': None}, CPU, 'triton')


@pytest.mark.parametrize('used', (0, 1))
def test_one_output_used_alone(cut, used):
    arguments = make(batch=1, length=18)
    gradients = []
    for backend in ('triton', 'reference'):
        output = defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend=backend)[used]
        gradients.append(torch.autograd.grad(output.square().sum(), arguments['dt'])[0])
    assert_close(*gradients, GRADIENT[FLOAT], 'gradient of dt')


@pytest.mark.parametrize(
    ('length', 'programs', 'processors', 'tokens'),
    [
        (197, 64 * 24, 132, 208),  # enough programs for all multiprocessors
        (577, 132, 132, 592),
        (4705, 2 * 24, 132, 432),
        (4705, 24, 132, 224),
        (577, 24, 132, 64),  # limited by the shortest segment
        (1, 1, 132, 16),
        (577, 0, 132, 64),
        (33, 1, 1, 48),
    ],
)
def test_segment_rule(length, programs, processors, tokens):
    """Triton runs without the extension, so the rule is implemented in Python too; both versions must agree."""
    assert triton.segment_tokens(length, programs, processors) == tokens
    rule = torch.ops.mmdefocus.gpu_segment_steps
    assert rule(length, max(programs, 1), processors, TRITON_CHUNK, triton.MIN_SEGMENT) == tokens


@pytest.mark.parametrize('at', (1, 16))
def test_a_sequence_continues_across_a_cut(at):
    arguments = make(batch=1, length=20)

    def part(state, begin, end):
        along = {name: arguments[name][:, begin:end] for name in ACTIVATIONS}
        changed = {**arguments, **along, 'positions': arguments['positions'][begin:end], 'initial_state': state}
        return defocus_scan(**changed, **OPTIONS, return_last_state=True, backend='triton')

    inputs = [arguments[name] for name in NAMES]
    whole, last_state = part(arguments['initial_state'], 0, 20)
    expected = torch.autograd.grad(whole.square().sum() + last_state.sum(), inputs)
    first, state = part(arguments['initial_state'], 0, at)
    second, end = part(state, at, 20)
    assert_close(torch.cat((first, second), dim=1), whole, FORWARD[FLOAT], 'y')
    assert_close(end, last_state, FORWARD[FLOAT], 'last_state')
    actual = torch.autograd.grad(first.square().sum() + second.square().sum() + end.sum(), inputs)
    for name, gradient, other in zip(NAMES, actual, expected, strict=True):
        assert_close(gradient, other, GRADIENT[FLOAT], f'gradient of {name}')


def test_slices_and_any_strides(cut):
    """Slices of wider rows surrounded by NaN, and tensors whose channels are not contiguous."""
    plain = make(batch=1, length=18)
    sliced, permuted = dict(plain), dict(plain)
    for name in NAMES:
        value = plain[name].detach()
        wide = torch.full((*value.shape[:-1], value.shape[-1] + 16), math.nan)
        wide[..., 3 : 3 + value.shape[-1]] = value
        sliced[name] = wide[..., 3 : 3 + value.shape[-1]].requires_grad_()
        permuted[name] = value.transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
    expected = run_scan(plain, 'triton')
    for other in (sliced, permuted):
        for name, result in run_scan(other, 'triton').items():
            assert torch.equal(result, expected[name]), name


def test_expanded_gradient():
    arguments = make(batch=1, length=3)
    y = defocus_scan(**arguments, **OPTIONS, backend='triton')
    (gradient,) = torch.autograd.grad(y.sum(), arguments['u'], retain_graph=True)
    assert torch.equal(gradient, torch.autograd.grad(y, arguments['u'], torch.ones_like(y))[0])


@pytest.mark.parametrize('apart', (2**30 + 64, 2**31 + 64))
@pytest.mark.parametrize('dimension', (0, 1))
def test_offsets_beyond_32_bits(dimension, apart):
    """Strides of 32 bits and of more between three sequences, or three tokens, in memory that is hardly touched."""
    plain = make(batch=3 if dimension == 0 else 1, channels=8, length=3)
    memory = torch.from_numpy(np.empty(2 * apart + 4096, dtype=np.float16))
    far = dict(plain)
    for index, name in enumerate(ACTIVATIONS):
        value = plain[name].detach().half()
        plain[name] = value.clone().requires_grad_()
        strides = (apart, 32, 1) if dimension == 0 else (4 * apart, apart, 1)
        far[name] = memory.as_strided(value.shape, strides, 128 * index).copy_(value).requires_grad_()
    expected = run_scan(plain, 'triton')
    for name, result in run_scan(far, 'triton').items():
        assert torch.equal(result, expected[name]), name


@pytest.mark.parametrize('dtype', HALF)
def test_half_types_compute_in_float32(dtype):
    arguments = {name: value.detach() for name, value in make(batch=1, length=18).items()}
    half = {name: arguments[name].to(dtype).requires_grad_() for name in ACTIVATIONS}
    exact = {name: value.detach().float().requires_grad_() for name, value in half.items()}
    arguments['A'].requires_grad_()
    options = {**OPTIONS, 'return_last_state': True}
    y, state = defocus_scan(**{**arguments, **half}, **options, backend='triton')
    expected, expected_state = defocus_scan(**{**arguments, **exact}, **options, backend='reference')
    grad_output = torch.randn(y.shape).to(dtype)
    inputs = [arguments['A'], *half.values()]
    gradients = torch.autograd.grad(y, inputs, grad_output)
    exact_inputs = [arguments['A'], *exact.values()]
    expected_gradients = torch.autograd.grad(expected, exact_inputs, grad_output.float())
    assert state.dtype == FLOAT
    assert_close(state, expected_state, FORWARD[FLOAT], 'last_state')
    assert_close(gradients[0], expected_gradients[0], GRADIENT[FLOAT], 'gradient of A')
    assert y.dtype == dtype
    assert [gradient.dtype for gradient in gradients[1:]] == [dtype] * len(half)
    if dtype == torch.float16:  # the interpreter truncates to bfloat16 where a GPU rounds
        assert_close(y.float(), expected, HALF[dtype], 'y')
        for name, gradient, other in zip(half, gradients[1:], expected_gradients[1:], strict=True):
            assert_close(gradient.float(), other, HALF[dtype], f'gradient of {name}')


@pytest.mark.parametrize('scale', (0.0, 1e3, 1e30))
def test_extreme_decay(scale):
    arguments = {name: value.detach() for name, value in make(batch=1, length=9).items()}
    arguments['A'] *= scale
    arguments['dt'] *= 30
    actual, expected = (defocus_scan(**arguments, **OPTIONS, backend=name) for name in ('triton', 'reference'))
    assert_close(actual, expected, FORWARD[FLOAT])


@pytest.mark.parametrize('step', (-200.0, -30.0, 19.0, 21.0))
def test_extreme_steps(step):
    arguments = make(batch=1, length=5)
    with torch.no_grad():
        arguments['dt'].add_(step)
    assert_equals_reference(arguments, CPU, 'triton')


def test_is_causal():
    arguments = make(batch=1, length=20)
    y = defocus_scan(**arguments, **OPTIONS, backend='triton')
    inputs = [arguments[name] for name in ('u', 'dt', 'B', 'C')]
    gradients = torch.autograd.grad(y[:, 17].sum(), inputs)
    for name, gradient in zip(('u', 'dt', 'B', 'C'), gradients, strict=True):
        assert gradient[:, 18:].abs().max() == 0, name
        assert gradient[:, 17].abs().max() > 0, name
    assert gradients[0][:, 0].abs().max() > 0


@pytest.mark.parametrize('name', ('u', 'dt', 'B', 'C', 'z'))
def test_nan_reaches_all_that_depends_on_it_and_nothing_else(name):
    arguments = {key: value.detach() for key, value in make(length=4).items()}
    arguments[name][0, 2, 3] = math.nan
    results = [defocus_scan(**arguments, **OPTIONS, return_last_state=True, backend=b) for b in ('triton', 'reference')]
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual.isnan(), expected.isnan())
    assert results[0][0].isnan().any()


def test_no_sequence_in_the_batch(cut):
    arguments = make(batch=0)
    results = run_scan(arguments, 'triton')
    assert results['y'].shape == (0, 33, 24)
    assert results['last_state'].shape == (0, 24, 16)
    for name in ('A', 'D', 'dt_bias', 'freq'):
        assert torch.equal(results[f'gradient of {name}'], torch.zeros_like(arguments[name])), name


def test_saves_inputs_and_chunk_states_only():
    arguments = {**make(batch=1, length=18), 'freq': None, 'positions': None}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        defocus_scan(**arguments, **OPTIONS, backend='triton')
    given = {value.data_ptr() for value in arguments.values() if value is not None}
    (own,) = [x for x in saved if x.data_ptr() not in given]
    assert own.shape == (1, 2, 24, 16)
    assert torch.equal(own[:, 0], arguments['initial_state'])


def test_opcheck():
    shapes = {'u': (1, 3, 8), 'dt': (1, 3, 8), 'A': (8, 4), 'B': (1, 3, 4), 'C': (1, 3, 4), 'D': (8,), 'z': (1, 3, 8)}
    shapes |= {'dt_bias': (8,), 'initial_state': (1, 8, 4)}
    tensors = [torch.randn(shape, requires_grad=True) for shape in shapes.values()]
    options = (2.0, 8, 1e-6)
    torch.library.opcheck(torch.ops.mmdefocus.defocus_scan_triton.default, (*tensors, *options))
    tensors = [tensor.detach() for tensor in tensors]
    y, state, chunk_states = torch.ops.mmdefocus.defocus_scan_triton(*tensors, *options)
    backward = torch.ops.mmdefocus.defocus_scan_triton_backward.default
    torch.library.opcheck(backward, (y, state, *tensors[:-1], chunk_states, *options))


def test_flops_are_counted():
    arguments = make(batch=1, length=2)
    with FlopCounterMode(display=False) as counter:
        y = defocus_scan(**arguments, **OPTIONS, backend='triton')
        torch.autograd.grad(y.sum(), arguments['u'])
    shapes = [arguments[name].shape for name in ('u', 'dt', 'A')]
    expected = selective_scan_flops(*shapes) + selective_scan_backward_flops(None, None, *shapes)
    assert counter.get_total_flops() == expected


def test_compiles_without_graph_break():
    arguments = make(batch=1, length=3)

    def function(**tensors):
        y, last_state = defocus_scan(**tensors, **OPTIONS, return_last_state=True, backend='triton')
        return y.square().sum() + last_state.sum()

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    inputs = [arguments[name] for name in NAMES]
    actual = torch.autograd.grad(compiled(**arguments), inputs)
    for gradient, expected in zip(actual, torch.autograd.grad(function(**arguments), inputs), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_autocast_does_not_reach_the_scan():
    arguments = make(batch=1, length=2)
    expected = defocus_scan(**arguments, **OPTIONS, backend='triton')
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(defocus_scan(**arguments, **OPTIONS, backend='triton'), expected)


def test_double_backward_are_refused():
    arguments = make(batch=1, length=2)
    y = defocus_scan(**arguments, **OPTIONS, backend='triton')
    (gradient,) = torch.autograd.grad(y.square().sum(), arguments['dt'], create_graph=True)
    with pytest.raises(RuntimeError, match='defocus_scan_triton: only the reference supports double backward'):
        gradient.sum().backward()


def test_on_a_cpu_only_by_name(monkeypatch):
    arguments = {name: value.detach() for name, value in make(batch=1, length=2).items()}
    calls = []
    scan = _IMPLEMENTATIONS['triton']
    monkeypatch.setitem(_IMPLEMENTATIONS, 'triton', lambda *values: calls.append(1) or scan(*values))
    defocus_scan(**arguments, **OPTIONS)
    assert calls == []
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'triton')
    defocus_scan(**arguments, **OPTIONS)
    assert calls == [1]


def test_limits():
    for sizes, group_size, message in (
        ({'state': 34}, 8, 'its kernels take a state of up to 32, got 34'),
        ({'channels': 258}, 129, 'its kernels take a group_size of up to 128, got 129'),
    ):
        with pytest.raises(RuntimeError, match=f"backend 'triton' cannot run: {message}"):
            defocus_scan(**make(length=2, **sizes), group_size=group_size, backend='triton')
