import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bandpass_attention import LENGTHS, make
from tolerances import FORWARD, GRADIENT, HALF, assert_close, looser
from torch.utils.flop_counter import FlopCounterMode

from mmdefocus.ops import retention

FORMS = ('parallel', 'chunkwise', 'recurrent')
EVERY = [{'form': form} for form in FORMS] + [{'backend': 'reference'}]


def with_state(arguments):
    batch, heads, _, channels = arguments['q'].shape
    state = torch.randn(batch, heads, arguments['v'].shape[-1], channels, dtype=arguments['q'].dtype)
    return {**arguments, 'initial_state': state.requires_grad_()}


def run(arguments, **options):
    """Return output, last state and the gradients of all arguments, for the same output gradients in every call."""
    outputs = retention(**arguments, **options, return_last_state=True)
    generator = torch.Generator().manual_seed(1)
    grad_output = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    gradients = torch.autograd.grad(outputs, list(arguments.values()), grad_output)
    return dict(zip(('y', 'last_state'), outputs, strict=True)), dict(zip(arguments, gradients, strict=True))


def assert_same(arguments, form):
    outputs, gradients = run(arguments, form=form)
    expected_outputs, expected_gradients = run(arguments, backend='reference')
    for name, expected in expected_outputs.items():
        assert_close(outputs[name], expected, FORWARD[torch.float64], name)
    for name, expected in expected_gradients.items():
        assert_close(gradients[name], expected, GRADIENT[torch.float64], f'gradient of {name}')


@pytest.mark.parametrize('state', (True, False))
@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('form', FORMS)
def test_forms_equal_the_reference_at_every_length(form, length, state):
    arguments = make(length=length, dtype=torch.float64)
    assert_same(with_state(arguments) if state else arguments, form)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, largest) for largest in (2, 3, 150, 4, 5))),
    decay=st.sampled_from((0.0, 1e-6, 0.03, 1.0, 30.0, 1e4)),
    form=st.sampled_from(FORMS),
)
def test_forms_equal_the_reference_at_any_shape(shape, decay, form):
    batch, heads, length, pairs, values = shape
    arguments = make(batch, heads, length, 2 * pairs, values, torch.float64)
    arguments['decay'].data.fill_(decay)
    assert_same(with_state(arguments), form)


@pytest.mark.parametrize('length', (2, 65, 577))
@pytest.mark.parametrize('form', FORMS)
def test_forms_are_exact_in_float32(form, length):
    arguments = with_state(make(length=length))
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
    (outputs, gradients), (expected_outputs, expected_gradients) = run(arguments, form=form), run(exact)
    for name, expected in expected_outputs.items():
        assert_close(outputs[name].double(), expected, FORWARD[torch.float32], name)
    for name, expected in expected_gradients.items():
        rows = ('filter',) if name in ('decay', 'freq') else ()
        tolerance = looser(GRADIENT[torch.float32], *rows)
        assert_close(gradients[name].double(), expected, tolerance, f'gradient of {name}')


@pytest.mark.parametrize('options', EVERY)
def test_definition_against_a_loop_over_scalars(options):
    arguments = with_state(make(batch=1, heads=1, length=5, channels=4, values=2, dtype=torch.float64))
    y, last_state = retention(**arguments, **options, return_last_state=True)
    with torch.no_grad():
        q, k, v, decay, freq, state = (tensor[0].squeeze(0) for tensor in arguments.values())
        for j in range(2):
            aged = complex(torch.exp(-decay[j]) * torch.cos(freq[j]), -torch.exp(-decay[j]) * torch.sin(freq[j]))
            for c in range(2):
                S = complex(state[c, 2 * j], state[c, 2 * j + 1])
                for t in range(5):
                    S = S * aged + float(v[t, c]) * complex(k[t, 2 * j], k[t, 2 * j + 1])
                    y[0, 0, t, c] -= (complex(q[t, 2 * j], q[t, 2 * j + 1]) * S.conjugate()).real / 2
                last_state[0, 0, c, 2 * j] -= S.real
                last_state[0, 0, c, 2 * j + 1] -= S.imag
    assert y.abs().max() < 1e-14
    assert last_state.abs().max() < 1e-14


@pytest.mark.parametrize('options', EVERY)
def test_gradcheck(options):
    arguments = with_state(make(batch=1, heads=2, length=9, channels=4, values=2, dtype=torch.float64))

    def function(q, k, v, decay, freq, state):
        return retention(q, k, v, decay, freq, initial_state=state, return_last_state=True, **options)

    assert torch.autograd.gradcheck(function, tuple(arguments.values()))


@pytest.mark.parametrize('options', EVERY)
def test_scale_multiplies_the_outputs_and_not_the_state(options):
    arguments = with_state(make(dtype=torch.float64))
    plain, plain_state = retention(**arguments, scale=1 / math.sqrt(8), return_last_state=True, **options)
    y, state = retention(**arguments, scale=3.0, return_last_state=True, **options)
    assert_close(y, 3 * math.sqrt(8) * plain, FORWARD[torch.float64])
    assert torch.equal(state, plain_state)
    assert_close(retention(**arguments, **options), plain, FORWARD[torch.float64])


@pytest.mark.parametrize('options', EVERY)
def test_is_causal(options):
    arguments = make(length=140)
    y = retention(**arguments, **options)
    for gradient in torch.autograd.grad(y[:, :, 100].square().sum(), [arguments['k'], arguments['v']]):
        assert not gradient[:, :, 101:].any()
        assert (gradient[:, :, :101].abs().amax((0, 1, 3)) > 0).all()


@pytest.mark.parametrize('cut', (1, 64, 70))
@pytest.mark.parametrize('first', FORMS)
@pytest.mark.parametrize('second', FORMS)
def test_a_sequence_can_be_cut_and_continued_in_any_form(first, second, cut):
    arguments = with_state(make(length=100, dtype=torch.float64))
    expected, expected_state = retention(**arguments, return_last_state=True)
    head, tail = (
        {**arguments, **{name: arguments[name][:, :, part] for name in 'qkv'}}
        for part in (slice(None, cut), slice(cut, None))
    )
    y, state = retention(**head, form=first, return_last_state=True)
    rest, state = retention(**{**tail, 'initial_state': state}, form=second, return_last_state=True)
    assert_close(torch.cat((y, rest), 2), expected, FORWARD[torch.float64])
    assert_close(state, expected_state, FORWARD[torch.float64])


@pytest.mark.parametrize('options', EVERY)
def test_no_decay_and_no_rotation_is_linear_attention(options):
    arguments = make(length=130, dtype=torch.float64)
    q, k, v = (arguments[name] for name in 'qkv')
    expected = (q @ k.mT).tril() @ v / math.sqrt(8)
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    for decay, freq in ((zeros, zeros), (None, None)):
        assert_close(retention(q, k, v, decay, freq, **options), expected, FORWARD[torch.float64])


@pytest.mark.parametrize('decay', (1e4, math.inf))
@pytest.mark.parametrize('options', EVERY)
def test_infinite_decay_leaves_every_token_to_itself(options, decay):
    arguments = with_state(make(dtype=torch.float64))
    arguments['decay'].data.fill_(decay)
    outputs, gradients = run(arguments, **options)
    own = (arguments['q'] * arguments['k']).sum(-1, keepdim=True) / math.sqrt(8)
    assert_close(outputs['y'], own * arguments['v'], FORWARD[torch.float64])
    for name in ('decay', 'freq', 'initial_state'):
        assert not gradients[name].any(), name


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_long_sequences_are_exact_for_decays_from_1e_6_to_10(dtype):
    arguments = make(batch=1, heads=2, length=8192, channels=16, values=4)
    arguments['decay'].data = torch.logspace(-6, 1, 16).reshape(2, 8)
    arguments = {
        name: tensor.detach().to(dtype if name in 'qkv' else torch.float32).requires_grad_()
        for name, tensor in arguments.items()
    }
    outputs, gradients = run(arguments)
    assert outputs['y'].dtype == dtype
    exact = {name: tensor.detach().double() for name, tensor in arguments.items()}
    y, state = retention(**exact, return_last_state=True)
    assert_close(outputs['y'].double(), y, HALF.get(dtype, FORWARD[torch.float32]))
    assert_close(outputs['last_state'].double(), state, FORWARD[torch.float32])
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_memory_of_chunks_is_linear_in_the_length():
    batch, heads, length = 1, 2, 2048
    arguments = make(batch, heads, length, channels=8)
    saved = []
    with (
        torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t),
    ):
        retention(**arguments).sum().backward()
    allocations = [event.cpu_memory_usage for event in profile.events()]
    all_logits = batch * heads * length**2
    assert sum(saved) <= all_logits // 8
    assert 0 < max(allocations) <= all_logits * 4 // 8


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('options', EVERY)
def test_half_types_compute_in_float32(options, dtype):
    half = {name: tensor.detach().to(dtype) for name, tensor in make().items()}
    y, state = retention(**half, **options, return_last_state=True)
    exact = {name: tensor.float() for name, tensor in half.items()}
    expected, expected_state = retention(**exact, **options, return_last_state=True)
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(state, expected_state)
    assert state.dtype == torch.float32


@pytest.mark.parametrize('options', EVERY)
def test_autocast_does_not_reach_it(options):
    arguments = make()
    expected = retention(**arguments, **options)
    with torch.autocast('cpu', torch.bfloat16):
        y = retention(**arguments, **options)
    assert torch.equal(y, expected)
    assert_close(
        torch.autograd.grad(y.square().sum(), arguments['k'])[0],
        torch.autograd.grad(expected.square().sum(), arguments['k'])[0],
        GRADIENT[torch.float32],
    )


@pytest.mark.parametrize('form', FORMS)
def test_any_strides(form):
    arguments = with_state(make(length=65, dtype=torch.float64))
    transposed = {
        name: tensor.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        for name, tensor in arguments.items()
    }
    for actual, expected in zip(run(transposed, form=form), run(arguments, form=form), strict=True):
        for name, tensor in expected.items():
            torch.testing.assert_close(actual[name], tensor)


@pytest.mark.parametrize('form', FORMS)
def test_nan_passes_through(form):
    arguments = {name: tensor.detach() for name, tensor in make().items()}
    arguments['decay'][:] = 0.1
    arguments['k'][0, 1, 10] = torch.nan
    y = retention(**arguments, form=form)
    assert y[0, 1, 10:].isnan().all()
    assert y[1].isfinite().all()


def test_counts_flops():
    arguments = make(length=128, channels=8, values=5)

    def count(form):
        with FlopCounterMode(display=False) as counter:
            retention(**arguments, form=form)
        return counter.get_total_flops()

    heads = 2 * 3
    assert count('parallel') == heads * 2 * (128 * 128 * (8 + 5) + 2 * 128 * 8 * 5)
    assert count('chunkwise') == heads * 2 * (128 * 64 * (8 + 5) + 2 * 128 * 8 * 5)


@pytest.mark.parametrize(('form', 'length'), [('parallel', 17), ('chunkwise', 70), ('recurrent', 3)])
def test_compiles_without_graph_break(form, length):
    arguments = make(length=length)

    def function(q, k, v, decay, freq):
        return retention(q, k, v, decay, freq, form)

    inputs = list(arguments.values())
    y, expected = torch.compile(function, fullgraph=True, backend='aot_eager')(*inputs), function(*inputs)
    torch.testing.assert_close(y, expected)
    for actual, other in zip(
        torch.autograd.grad(y.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(actual, other)


@pytest.mark.parametrize('form', FORMS)
def test_meta_tensors_give_the_shapes(form):
    arguments = {name: tensor.detach().to('meta') for name, tensor in make().items()}
    y, state = retention(**arguments, form=form, return_last_state=True)
    assert y.is_meta
    assert (y.shape, state.shape) == ((2, 3, 70, 5), (2, 3, 5, 8))


def test_double_backward():
    arguments = make(batch=1, heads=1, length=4, dtype=torch.float64)

    def derivative(backend):
        y = retention(**arguments, backend=backend)
        return torch.autograd.grad(y.square().sum(), arguments['decay'], create_graph=True)[0].sum()

    assert torch.autograd.grad(derivative('reference'), arguments['q'])[0].any()
    with pytest.raises(RuntimeError, match=r"fused_retention: .* double backward; use backend='reference'"):
        torch.autograd.grad(derivative(None), arguments['q'])


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'q': torch.zeros(2, 3, 0, 8)}, ValueError, r'retention: expected .* at least one token'),
        ({'q': torch.zeros(2, 3, 70, 7)}, ValueError, 'even number of channels per head .*, got 7'),
        ({'decay': torch.full((3, 4), -0.5)}, ValueError, 'expected decay >= 0, got -0.5'),
        ({'form': 'fast'}, ValueError, "form to be one of parallel, chunkwise, recurrent, got 'fast'"),
        (
            {'initial_state': torch.zeros(2, 3, 8, 5)},
            ValueError,
            r'initial_state of shape .* = \(2, 3, 5, 8\), got \(2, 3, 8, 5\)',
        ),
        ({'backend': 'cuda'}, RuntimeError, "'cuda' does not have this operator; those that do: cpp, reference"),
        (
            {'backend': 'cpp', 'form': 'parallel'},
            RuntimeError,
            "'cpp' cannot run: its kernels compute form='chunkwise', got 'parallel'",
        ),
        ({'initial_state': torch.zeros(2, 3, 5, 8).double()}, TypeError, 'initial_state is torch.float64'),
    ],
)
def test_wrong_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        retention(**{**make(), **changes})


def test_the_environment_variable_chooses_the_reference(monkeypatch):
    arguments = make()
    default, reference = retention(**arguments), retention(**arguments, backend='reference')
    assert not torch.equal(default, reference)  # their rounding differs
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    assert torch.equal(retention(**arguments), reference)
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'cpp')
    assert torch.equal(retention(**arguments), default)
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'cuda')  # a backend of other operators
    assert torch.equal(retention(**arguments), default)
