import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import FORWARD, GRADIENT, HALF, assert_close, looser
from torch.utils.flop_counter import FlopCounterMode

from mmdefocus.ops import bandpass_attention

LENGTHS = (1, 2, 3, 63, 64, 65, 145, 197, 577)
NAMES = ('q', 'k', 'v', 'decay', 'freq')


def make(batch=2, heads=3, length=70, channels=8, values=5, dtype=torch.float32):
    """Make random arguments by name; with decays from 1e-3 to 10, keys fade within a token or hardly at all."""
    arguments = {
        'q': torch.randn(batch, heads, length, channels, dtype=dtype),
        'k': torch.randn(batch, heads, length, channels, dtype=dtype),
        'v': torch.randn(batch, heads, length, values, dtype=dtype),
        'decay': 10 ** (torch.rand(heads, channels // 2, dtype=dtype) * 4 - 3),
        'freq': torch.rand(heads, channels // 2, dtype=dtype),
    }
    return {name: tensor.requires_grad_() for name, tensor in arguments.items()}


def run(arguments, **options):
    """Return the output and the gradients of all arguments, for the same output gradient in every call."""
    y = bandpass_attention(**arguments, **options)
    grad_output = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return y, dict(zip(arguments, torch.autograd.grad(y, list(arguments.values()), grad_output), strict=True))


def assert_same(arguments, **options):
    y, gradients = run(arguments, **options)
    expected, expected_gradients = run(arguments, **options, backend='reference')
    dtype = y.dtype
    assert_close(y, expected, FORWARD[dtype], 'y')
    for name, gradient in expected_gradients.items():
        if gradient.any():
            assert_close(gradients[name], gradient, GRADIENT[dtype], f'gradient of {name}')
        else:  # a single token attends only to itself, whatever its logit
            assert gradients[name].abs().max() <= GRADIENT[dtype], f'gradient of {name}'


@pytest.mark.parametrize('causal', (True, False))
@pytest.mark.parametrize('length', LENGTHS)
def test_blocks_equal_the_reference_at_every_length(length, causal):
    assert_same(make(length=length, dtype=torch.float64), causal=causal)


@pytest.mark.parametrize('causal', (True, False))
@pytest.mark.parametrize('length', (2, 65, 577))
def test_blocks_are_exact_in_float32(length, causal):
    arguments = make(length=length)
    y, gradients = run(arguments, causal=causal)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
    expected, expected_gradients = run(exact, causal=causal, backend='reference')
    assert_close(y.double(), expected, FORWARD[torch.float32])
    for name, gradient in gradients.items():
        rows = ('filter',) if name in ('decay', 'freq') else ()
        tolerance = looser(GRADIENT[torch.float32], *rows)
        assert_close(gradient.double(), expected_gradients[name], tolerance, f'gradient of {name}')


def test_blocks_of_a_long_sequence_equal_the_reference():
    assert_same(make(batch=1, heads=1, length=1100, channels=4, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, largest) for largest in (2, 3, 150, 4, 5))),
    decay=st.sampled_from((0.0, 1e-6, 0.03, 1.0, 30.0, 1e4)),
    causal=st.booleans(),
)
def test_blocks_equal_the_reference_at_any_shape(shape, decay, causal):
    batch, heads, length, pairs, values = shape
    arguments = make(batch, heads, length, 2 * pairs, values, torch.float64)
    arguments['decay'].data.fill_(decay)
    assert_same(arguments, causal=causal)


def direct_row(arguments, t, causal=True):
    """Compute the output (B, H, V) of token t by the formula, in complex numbers and float64."""
    q, k, v, decay, freq = (arguments[name].detach().double() for name in NAMES)
    seen = t + 1 if causal else q.shape[2]
    n = (t - torch.arange(seen)).double()[:, None]
    q, k = (torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) for x in (q, k))
    filters = torch.exp(-decay[:, None] * n.abs()) * torch.exp(1j * freq[:, None] * n)
    logits = (q[:, :, t, None] * k[:, :, :seen].conj() * filters).real.sum(-1) / math.sqrt(2 * q.shape[-1])
    return torch.einsum('bhs,bhsv->bhv', logits.softmax(-1), v[:, :, :seen])


@pytest.mark.parametrize('causal', (True, False))
@pytest.mark.parametrize('backend', (None, 'reference'))
def test_definition(backend, causal):
    arguments = make(dtype=torch.float64)
    y = bandpass_attention(**arguments, causal=causal, backend=backend)
    for t in (0, 1, 40, 69):
        assert_close(y[:, :, t].detach(), direct_row(arguments, t, causal), FORWARD[torch.float64])


@pytest.mark.parametrize('causal', (True, False))
@pytest.mark.parametrize('backend', (None, 'reference'))
def test_gradcheck(backend, causal):
    arguments = make(batch=1, heads=2, length=11, channels=4, values=3, dtype=torch.float64)

    def function(*tensors):
        return bandpass_attention(*tensors, causal=causal, backend=backend)

    assert torch.autograd.gradcheck(function, tuple(arguments.values()))


@pytest.mark.parametrize('backend', (None, 'reference'))
def test_is_causal(backend):
    arguments = make(length=140)
    y = bandpass_attention(**arguments, backend=backend)
    for gradient in torch.autograd.grad(y[:, :, 100].square().sum(), [arguments['k'], arguments['v']]):
        assert not gradient[:, :, 101:].any()
        assert (gradient[:, :, :101].abs().amax((0, 1, 3)) > 0).all()


def test_without_causality_every_token_sees_all():
    arguments = make(length=140)
    y = bandpass_attention(**arguments, causal=False)
    (gradient,) = torch.autograd.grad(y[:, :, 100].square().sum(), arguments['v'])
    assert (gradient.abs().amax((0, 1, 3)) > 0).all()


@pytest.mark.parametrize('causal', (True, False))
@pytest.mark.parametrize('dtype', (torch.float64, torch.float32))
def test_no_decay_and_no_rotation_is_torch_attention(dtype, causal):
    arguments = make(length=130, dtype=dtype)
    q, k, v = (arguments[name] for name in 'qkv')
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert torch.equal(bandpass_attention(q, k, v, None, None, causal), expected)
    zeros = torch.zeros_like(arguments['decay'])
    for backend in (None, 'reference'):
        assert_close(bandpass_attention(q, k, v, zeros, zeros, causal, backend=backend), expected, FORWARD[dtype])


def test_rotation_without_decay():
    arguments = make(length=577, dtype=torch.float64)
    q, k, v, _, freq = arguments.values()
    expected, expected_gradients = run({**arguments, 'decay': torch.zeros_like(freq, requires_grad=True)})
    y = bandpass_attention(q, k, v, None, freq)
    assert_close(y, expected, FORWARD[torch.float64])
    grad_output = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name, gradient in zip(('q', 'k', 'freq'), torch.autograd.grad(y, (q, k, freq), grad_output), strict=True):
        assert_close(gradient, expected_gradients[name], GRADIENT[torch.float64], f'gradient of {name}')
    rotated = bandpass_attention(q.float(), k.float(), v.float(), None, freq.float())
    assert_close(rotated.double(), expected, FORWARD[torch.float32])


def test_decay_without_rotation():
    arguments = make(dtype=torch.float64)
    y = bandpass_attention(**{**arguments, 'freq': None})
    zeros = torch.zeros_like(arguments['freq'])
    assert torch.equal(y, bandpass_attention(**{**arguments, 'freq': zeros}))


@pytest.mark.parametrize('decay', (1e4, math.inf))
@pytest.mark.parametrize('causal', (True, False))
@pytest.mark.parametrize('backend', (None, 'reference'))
def test_infinite_decay_leaves_only_the_self_logit(backend, causal, decay):
    arguments = make(length=70, dtype=torch.float64)
    arguments['decay'].data.fill_(decay)
    y, gradients = run(arguments, causal=causal, backend=backend)
    logits = torch.diag_embed((arguments['q'] * arguments['k']).sum(-1) / math.sqrt(8))
    if causal:
        logits = logits.masked_fill(torch.ones(70, 70, dtype=torch.bool).triu(1), -math.inf)
    assert_close(y, logits.softmax(-1) @ arguments['v'], FORWARD[torch.float64])
    assert not gradients['decay'].any()
    assert not gradients['freq'].any()


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
@pytest.mark.parametrize('causal', (True, False))
def test_long_sequences_are_exact_for_decays_from_1e_6_to_10(causal, dtype):
    arguments = make(batch=1, heads=2, length=8192, channels=16, values=4)
    arguments['decay'].data = torch.logspace(-6, 1, 16).reshape(2, 8)
    arguments = {
        name: tensor.detach().to(dtype if name in 'qkv' else torch.float32).requires_grad_()
        for name, tensor in arguments.items()
    }
    y, gradients = run(arguments, causal=causal)
    assert y.dtype == dtype
    assert y.isfinite().all()
    tolerance = HALF[dtype] if dtype in HALF else FORWARD[dtype]
    for t in (5, 63, 64, 4097, 8191):
        expected = direct_row(arguments, t, causal)
        assert_close(y[:, :, t].detach().double(), expected, tolerance, f'token {t}')
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize('options', ({'causal': True}, {'causal': False}))
def test_memory_is_linear_in_the_length(options):
    batch, heads, length = 1, 2, 2048
    arguments = make(batch, heads, length, channels=8)
    saved = []
    with (
        torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t),
    ):
        bandpass_attention(**arguments, **options).sum().backward()
    allocations = [event.cpu_memory_usage for event in profile.events()]
    all_logits = batch * heads * length**2
    assert sum(saved) <= all_logits // 8
    assert 0 < max(allocations) <= all_logits * 4 // 8


@pytest.mark.parametrize('decay', (True, False))
@pytest.mark.parametrize('dtype', HALF)
def test_half_types(dtype, decay):
    half = {name: tensor.detach().to(dtype) for name, tensor in make().items()}
    exact = {name: tensor.float() for name, tensor in half.items()}
    if not decay:
        half['decay'] = exact['decay'] = None
    y, expected = bandpass_attention(**half), bandpass_attention(**exact)
    assert y.dtype == dtype
    if decay:
        assert torch.equal(y, expected.to(dtype))
    else:  # torch's attention on rotated queries and keys, which are rounded once more
        assert_close(y.float(), expected, looser(HALF[dtype], 'rounded operands'))


def test_autocast_does_not_reach_it():
    arguments = make()
    expected, expected_gradients = run(arguments)
    with torch.autocast('cpu', torch.bfloat16):
        y, gradients = run(arguments)
        without = bandpass_attention(**{**arguments, 'decay': None, 'freq': None})
    assert torch.equal(y, expected)
    assert without.dtype == torch.float32
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected_gradients[name]), name


def test_any_strides():
    arguments = make(length=65)
    transposed = {
        name: tensor.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        for name, tensor in arguments.items()
    }
    (y, gradients), (expected, expected_gradients) = run(transposed), run(arguments)
    torch.testing.assert_close(y, expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name])


def test_expanded_grad_output():
    arguments = make(length=65)
    y, again = bandpass_attention(**arguments), bandpass_attention(**arguments)
    for actual, expected in zip(
        torch.autograd.grad(y.sum(), list(arguments.values())),
        torch.autograd.grad((again * torch.ones_like(again)).sum(), list(arguments.values())),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize('absent', [(), ('decay',), ('decay', 'freq')])
@pytest.mark.parametrize('backend', (None, 'reference'))
def test_scale_multiplies_the_logits(backend, absent):
    """Without a decay, the scale is passed to torch's attention."""
    arguments = {**make(), **dict.fromkeys(absent)}
    scaled = bandpass_attention(**arguments, scale=2 / math.sqrt(8), backend=backend)
    twice = {**arguments, 'q': arguments['q'] * 2}
    assert_close(scaled, bandpass_attention(**twice, backend=backend), FORWARD[torch.float32])


@pytest.mark.parametrize('name', NAMES)
def test_nan_passes_through(name):
    arguments = {key: tensor.detach() for key, tensor in make().items()}
    if name in 'qkv':
        arguments[name][:, :, 10] = torch.nan
        assert bandpass_attention(**arguments)[:, :, 10].isnan().all()
    else:
        arguments[name].fill_(torch.nan)
        assert bandpass_attention(**arguments)[:, :, 1:].isnan().all()


def test_counts_flops_as_torch_does():
    q, k, v, decay, freq = make().values()

    def count(attention):
        with FlopCounterMode(display=False) as counter:
            attention()
        return counter.get_total_flops()

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        forward = count(lambda: F.scaled_dot_product_attention(q, k, v))
    assert count(lambda: bandpass_attention(q, k, v, decay, freq)) == forward
    backward = 2 * 6 * 70**2 * (3 * 8 + 2 * 5)
    assert count(lambda: bandpass_attention(q, k, v, decay, freq).sum().backward()) == forward + backward


@pytest.mark.parametrize('causal', (True, False))
def test_opcheck(causal):
    q, k, v, decay, _ = make(length=70, dtype=torch.float64).values()
    rates = decay.detach().repeat_interleave(2, dim=1).requires_grad_()
    for softmax in (True, False):
        options = (causal, softmax)
        own = torch.randn(2, 3, 70, 1, dtype=torch.float64, requires_grad=True)
        torch.library.opcheck(torch.ops.mmdefocus.bandpass_attention.default, (q, k, v, own, rates, *options))
        blocks = torch.randn(2, 3, 2, 64, 64, dtype=torch.float64)
        detached = [tensor.detach() for tensor in (v, q, k, v, own, rates, v, blocks)]
        torch.library.opcheck(torch.ops.mmdefocus.bandpass_attention_backward.default, (*detached, *options))


@pytest.mark.parametrize('options', ({}, {'causal': False}, {'decay': None}))
def test_compiles_without_graph_break(options):
    arguments = {**make(length=17), **options}

    def function(q, k, v, decay, freq):
        return bandpass_attention(q, k, v, decay, freq, causal=options.get('causal', True))

    inputs = [arguments[name] for name in NAMES]
    y, expected = torch.compile(function, fullgraph=True, backend='aot_eager')(*inputs), function(*inputs)
    torch.testing.assert_close(y, expected)
    present = [tensor for tensor in inputs if tensor is not None]
    for actual, other in zip(
        torch.autograd.grad(y.square().sum(), present),
        torch.autograd.grad(expected.square().sum(), present),
        strict=True,
    ):
        torch.testing.assert_close(actual, other)


def test_meta_tensors_give_the_shape():
    arguments = {name: tensor.detach().to('meta') for name, tensor in make().items()}
    y = bandpass_attention(**arguments)
    assert y.is_meta
    assert y.shape == (2, 3, 70, 5)


def test_double_backward():
    arguments = make(batch=1, heads=1, length=4, dtype=torch.float64)

    def derivative(backend):
        y = bandpass_attention(**arguments, backend=backend)
        return torch.autograd.grad(y.square().sum(), arguments['decay'], create_graph=True)[0].sum()

    assert torch.autograd.grad(derivative('reference'), arguments['q'])[0].any()
    with pytest.raises(RuntimeError, match=r"bandpass_attention: .* double backward; use backend='reference'"):
        torch.autograd.grad(derivative(None), arguments['q'])


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'q': torch.zeros(3, 70, 8)}, ValueError, r'q of shape \(batch, heads, length, channels\), got \(3, 70, 8\)'),
        ({'q': torch.zeros(2, 3, 0, 8)}, ValueError, r'at least one token, got q of shape \(2, 3, 0, 8\)'),
        ({'q': torch.zeros(2, 0, 70, 8)}, ValueError, r'at least one head, got q of shape \(2, 0, 70, 8\)'),
        ({'q': torch.zeros(2, 3, 70, 7)}, ValueError, 'even number of channels per head .*, got 7'),
        ({'q': torch.zeros(2, 3, 70, 0)}, ValueError, 'even number of channels per head .*, got 0'),
        ({'k': torch.zeros(2, 3, 69, 8)}, ValueError, r'k of shape .* = \(2, 3, 70, 8\), got \(2, 3, 69, 8\)'),
        ({'v': torch.zeros(2, 70, 5)}, ValueError, r'v of shape .*value channels\), got \(2, 70, 5\)'),
        ({'v': torch.zeros(2, 3, 69, 5)}, ValueError, r'v of shape .* = \(2, 3, 70, 5\), got \(2, 3, 69, 5\)'),
        ({'decay': torch.zeros(3, 8)}, ValueError, r'decay of shape \(heads, channels / 2\) = \(3, 4\), got \(3, 8\)'),
        ({'freq': torch.zeros(4)}, ValueError, r'freq of shape \(heads, channels / 2\) = \(3, 4\), got \(4,\)'),
        ({'decay': torch.full((3, 4), -0.5)}, ValueError, r'expected decay >= 0, got -0.5; it is λ, not -λ or exp'),
        ({'freq': torch.zeros(3, 4, device='meta')}, ValueError, 'q is on cpu but freq is on meta'),
        ({'backend': 'fast'}, ValueError, "expected backend to be None or one of .*, got 'fast'"),
        ({'backend': 'triton'}, RuntimeError, "'triton' cannot run: its kernels run on GPU tensors, got .* on cpu"),
        (
            {'backend': 'cuda'},
            RuntimeError,
            "'cuda' does not have this operator; those that do: triton, cpp, reference",
        ),
        ({'k': torch.zeros(2, 3, 70, 8, dtype=torch.int64)}, TypeError, 'expected k as float16, .* got torch.int64'),
        ({'decay': torch.zeros(3, 4).double()}, TypeError, 'q is torch.float32 but decay is torch.float64'),
        ({'decay': 0.1}, TypeError, 'expected decay to be a tensor, got float'),
    ],
)
def test_wrong_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        bandpass_attention(**{**make(), **changes})


def test_the_environment_variable_chooses_the_reference(monkeypatch):
    arguments = make()
    default, reference = bandpass_attention(**arguments), bandpass_attention(**arguments, backend='reference')
    assert not torch.equal(default, reference)  # their rounding differs
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    assert torch.equal(bandpass_attention(**arguments), reference)
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'cpp')
    assert torch.equal(bandpass_attention(**arguments), default)
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'cuda')  # a backend of other operators
    assert torch.equal(bandpass_attention(**arguments), default)
