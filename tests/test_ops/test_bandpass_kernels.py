"""The C++ kernels of attention and retention, and the same in plain PyTorch, against the reference in float64.

The other tests of both operators run the C++ kernels where they are built, because they are the default on a CPU.
"""

import math

import pytest
import torch
from test_bandpass_attention import LENGTHS, make
from tolerances import FORWARD, GRADIENT, HALF, assert_close, looser

from mmdefocus.ops import bandpass_attention, retention
from mmdefocus.ops.backends import can_run_cpp
from mmdefocus.ops.bandpass.attention import attention_in_blocks
from mmdefocus.ops.bandpass.retention import retention_by_form

needs_kernels = pytest.mark.skipif(can_run_cpp() is not None, reason=str(can_run_cpp()))
SIZES = ((2, 1), (16, 7), (64, 33), (64, 64))
OPERATORS = {
    'causal': bandpass_attention,
    'not causal': lambda *tensors, **options: bandpass_attention(*tensors, causal=False, **options),
    'retention': retention,
}
each_operator = pytest.mark.parametrize('name', OPERATORS)


def run(function, arguments, **options):
    """Return the output and the gradients of all arguments by name."""
    y = function(*arguments.values(), **options)
    grad_output = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return {'y': y, **dict(zip(arguments, torch.autograd.grad(y, list(arguments.values()), grad_output), strict=True))}


def assert_same(name, arguments, tolerance=None, **options):
    exact = {key: tensor.detach().double().requires_grad_() for key, tensor in arguments.items()}
    expected = run(OPERATORS[name], exact, backend='reference')
    for key, actual in run(OPERATORS[name], arguments, backend='cpp', **options).items():
        limit = tolerance or looser(GRADIENT[actual.dtype], *(('filter',) if key in ('decay', 'freq') else ()))
        if expected[key].any():
            assert_close(actual.double(), expected[key], limit, key)
        else:
            assert actual.abs().max() <= limit, key


@needs_kernels
@each_operator
@pytest.mark.parametrize('sizes', SIZES, ids=str)
@pytest.mark.parametrize('dtype', (torch.float64, torch.float32))
def test_channels_and_values_of_any_number(name, sizes, dtype):
    assert_same(name, make(length=70, channels=sizes[0], values=sizes[1], dtype=dtype))


@needs_kernels
@each_operator
@pytest.mark.parametrize('length', LENGTHS)
def test_every_length_in_float32(name, length):
    assert_same(name, make(batch=1, length=length, channels=16, values=16))


@needs_kernels
@each_operator
def test_decays_from_zero_to_infinity_in_one_head(name):
    """Those above 60 / 64 have no common boundary of all tokens of a tile, and are computed pair by pair."""
    arguments = make(heads=2, length=140, channels=16, values=5, dtype=torch.float64)
    rates = [0.0, 1e-30, 1e-3, 60 / 64, 0.94, 5.0, 1e30, math.inf]
    arguments['decay'].data = torch.tensor(rates, dtype=torch.float64).expand(2, 8).clone()
    assert_same(name, arguments)


@needs_kernels
@each_operator
@pytest.mark.parametrize('dtype', HALF)
def test_half_types(name, dtype):
    arguments = {
        key: tensor.detach().to(dtype if key in 'qkv' else torch.float32).requires_grad_()
        for key, tensor in make(length=130, channels=64, values=64).items()
    }
    # The product of output and its gradient, which all logits of a row share, takes the output as it was rounded.
    assert_same(name, arguments, looser(HALF[dtype], 'rounded operands'))


@needs_kernels
@each_operator
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_heads_of_a_projection_need_no_copy(name, dtype):
    """Queries, keys and values are views of one (B, L, 3 H d) tensor, and the heads of a result lie side by side."""
    projection = torch.randn(2, 70, 3 * 3 * 16, dtype=dtype)
    views = projection.unflatten(-1, (3, 3, 16)).permute(2, 0, 3, 1, 4).unbind()
    copies = [view.contiguous() for view in views]
    parameters = [torch.rand(3, 8), torch.rand(3, 8)]
    y, expected = (OPERATORS[name](*tensors, *parameters, backend='cpp') for tensors in (views, copies))
    assert torch.equal(y, expected)
    assert y.transpose(1, 2).is_contiguous()


@needs_kernels
@pytest.mark.parametrize('name', ('causal', 'not causal'))
def test_threads_share_a_head(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_same(name, make(batch=1, heads=1, length=300, dtype=torch.float64))
    finally:
        torch.set_num_threads(threads)


@needs_kernels
@each_operator
@pytest.mark.parametrize('absent', ('decay', 'freq'))
def test_parameters_may_be_absent(name, absent):
    arguments = make(length=70, dtype=torch.float64)
    zeros = {**arguments, absent: torch.zeros(3, 4, dtype=torch.float64)}
    expected = OPERATORS[name](*zeros.values(), backend='reference')
    actual = OPERATORS[name](*{**arguments, absent: None}.values(), backend='cpp')
    assert_close(actual, expected, FORWARD[torch.float64])
    present = [tensor for key, tensor in arguments.items() if key != absent]
    gradients = (torch.autograd.grad(y.square().sum(), present) for y in (actual, expected))
    for gradient, other in zip(*gradients, strict=True):
        assert_close(gradient, other, GRADIENT[torch.float64])


@needs_kernels
@pytest.mark.parametrize('form', ('parallel', 'recurrent'))
def test_other_forms_of_retention_are_not_in_cpp(form):
    with pytest.raises(RuntimeError, match=f"'cpp' cannot run: its kernels compute form='chunkwise', got '{form}'"):
        retention(**make(), form=form, backend='cpp')


@needs_kernels
@pytest.mark.parametrize('causal', (True, False))
def test_opcheck_attention(causal):
    arguments = tuple(make(dtype=torch.float64).values())
    operators, options = torch.ops.mmdefocus, (causal, 0.3)
    torch.library.opcheck(operators.fused_bandpass_attention.default, (*arguments, *options))
    y, lse = operators.fused_bandpass_attention(*(x.detach() for x in arguments), *options)
    detached = [x.detach() for x in (y, *arguments, y, lse)]
    torch.library.opcheck(operators.fused_bandpass_attention_backward.default, (*detached, *options))


@needs_kernels
@pytest.mark.parametrize('with_state', (True, False))
def test_opcheck_retention(with_state):
    arguments = tuple(make(dtype=torch.float64).values())
    state = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True) if with_state else None
    operators = torch.ops.mmdefocus
    torch.library.opcheck(operators.fused_retention.default, (*arguments, state, 0.3, with_state, True))
    detached = [x.detach() for x in arguments]
    y, _, states = operators.fused_retention(*detached, None if state is None else state.detach(), 0.3, True, True)
    grad_state = torch.randn(2, 3, 5, 8, dtype=torch.float64) if with_state else None
    backward = (y, grad_state, *detached, states, with_state, 0.3)
    torch.library.opcheck(operators.fused_retention_backward.default, backward)


@needs_kernels
@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'q': torch.zeros(2, 3, 70, 7)}, r'expected q of shape \(B, H, L, d\) with .* an even d'),
        ({'k': torch.zeros(2, 3, 69, 8)}, r'expected k of shape \[2, 3, 70, 8\], got \[2, 3, 69, 8\]'),
        ({'v': torch.zeros(2, 3, 70, 5).half()}, 'expected v as Float on cpu, got Half'),
        ({'decay': torch.zeros(3, 8)}, r'expected decay of shape \[3, 4\], got \[3, 8\]'),
        ({'freq': torch.zeros(3, 4).double()}, 'expected freq as Float on cpu, got Double'),
    ],
)
def test_direct_calls_are_checked(changes, message):
    arguments = {**make(), **changes}.values()
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mmdefocus.fused_bandpass_attention(*arguments, True, 1.0)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mmdefocus.fused_retention(*arguments, None, 1.0, False, True)


def blocks(q, k, v, decay, freq, causal=True):
    return attention_in_blocks(q / math.sqrt(q.shape[-1]), k, v, decay, freq, causal)


def chunks(q, k, v, decay, freq):
    state = q.new_zeros(*q.shape[:2], v.shape[-1], q.shape[-1])
    return retention_by_form(q / math.sqrt(q.shape[-1]), k, v, decay, freq, state, 'chunkwise')[0]


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('causal', (True, False))
def test_blocks_of_plain_pytorch(causal, length):
    arguments = make(length=length, dtype=torch.float64)
    name = 'causal' if causal else 'not causal'
    expected = run(OPERATORS[name], arguments, backend='reference')
    for key, actual in run(blocks, arguments, causal=causal).items():
        if expected[key].any():
            assert_close(actual, expected[key], GRADIENT[torch.float64], key)


@pytest.mark.parametrize('length', LENGTHS)
def test_chunks_of_plain_pytorch(length):
    arguments = make(length=length, dtype=torch.float64)
    expected = run(retention, arguments, backend='reference')
    for key, actual in run(chunks, arguments).items():
        if expected[key].any():
            assert_close(actual, expected[key], GRADIENT[torch.float64], key)
