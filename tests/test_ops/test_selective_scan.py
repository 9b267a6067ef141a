import pytest
import torch
import torch.nn.functional as F
from tolerances import FORWARD, GRADIENT, HALF, assert_close

from mmdefocus.ops import selective_scan

LENGTHS = (1, 2, 3, 31, 32, 33, 63, 64, 65, 145, 197, 577)
NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'z', 'delta_bias')
FLOATS = (torch.float32, torch.float64)


def make(batch=2, channels=40, length=33, state=16, groups=1, dtype=torch.float32, constant=''):
    """Make random arguments by name; `constant` names the projections that do not depend on the input."""

    def projection(name):
        if name in constant:
            return torch.randn(channels, state, dtype=dtype)
        return torch.randn(batch, groups, state, length, dtype=dtype)

    arguments = {
        'u': torch.randn(batch, channels, length, dtype=dtype),
        'delta': torch.randn(batch, channels, length, dtype=dtype),
        'A': -torch.rand(channels, state, dtype=dtype) * 4,
        'B': projection('B'),
        'C': projection('C'),
        'D': torch.randn(channels, dtype=dtype),
        'z': torch.randn(batch, channels, length, dtype=dtype),
        'delta_bias': torch.randn(channels, dtype=dtype),
    }
    return {name: tensor.requires_grad_() for name, tensor in arguments.items()}


def run(arguments, backend, names=NAMES):
    """Return outputs and the gradients of the named arguments, for the same output gradients in every call."""
    y, state = selective_scan(**arguments, delta_softplus=True, return_last_state=True, backend=backend)
    generator = torch.Generator().manual_seed(1)
    grad_output = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in (y, state)]
    gradients = torch.autograd.grad([y, state], [arguments[name] for name in names], grad_output)
    return {'y': y, 'last_state': state}, dict(zip(names, gradients, strict=True))


def assert_same(arguments):
    outputs, gradients = run(arguments, 'cpp')
    expected_outputs, expected_gradients = run(arguments, 'reference')
    dtype = arguments['u'].dtype
    for name, expected in expected_outputs.items():
        assert_close(outputs[name], expected, FORWARD[dtype], name)
    for name, expected in expected_gradients.items():
        assert_close(gradients[name], expected, GRADIENT[dtype], f'gradient of {name}')


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('length', LENGTHS)
def test_cpp_equals_reference_at_every_length(length, dtype):
    assert_same(make(length=length, dtype=dtype))


@pytest.mark.parametrize('length', (2049, 4705))
def test_cpp_equals_reference_on_long_sequences(length):
    assert_same(make(batch=1, channels=24, length=length, dtype=torch.float64))


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('channels', (1, 7, 16, 31, 33, 100))
@pytest.mark.parametrize('state', (1, 5, 16, 17))
def test_cpp_equals_reference_at_every_width(channels, state, dtype):
    assert_same(make(channels=channels, state=state, length=34, dtype=dtype))


@pytest.mark.parametrize('constant', ('', 'B', 'C', 'BC'))
@pytest.mark.parametrize('groups', (1, 2, 20))
def test_groups_and_constants_use_the_reference(groups, constant):
    arguments = make(groups=groups, constant=constant, dtype=torch.float64)
    if groups == 1 and not constant:
        assert_same(arguments)
        return
    (y, _), (expected, _) = (run(arguments, backend)[0].values() for backend in (None, 'reference'))
    assert torch.equal(y, expected)
    with pytest.raises(RuntimeError, match=r"backend 'cpp' cannot run: its kernels take [BC] of shape \(batch, state"):
        selective_scan(**arguments, backend='cpp')


@pytest.mark.parametrize('softplus', (True, False))
@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_definition_against_a_loop_over_scalars(backend, softplus):
    groups = 2 if backend == 'reference' else 1
    arguments = make(batch=1, channels=2, length=5, state=3, groups=groups, dtype=torch.float64)
    y, last_state = selective_scan(**arguments, delta_softplus=softplus, return_last_state=True, backend=backend)
    with torch.no_grad():
        u, delta, A, B, C, D, z, bias = (arguments[name] for name in NAMES)
        for e in range(2):
            g = e % groups
            h = [0.0] * 3
            for t in range(5):
                step = delta[0, e, t] + bias[e]
                step = F.softplus(step) if softplus else step
                h = [torch.exp(step * A[e, n]) * h[n] + step * u[0, e, t] * B[0, g, n, t] for n in range(3)]
                out = sum(h[n] * C[0, g, n, t] for n in range(3)) + D[e] * u[0, e, t]
                torch.testing.assert_close(y[0, e, t], out * F.silu(z[0, e, t]))
            torch.testing.assert_close(last_state[0, e], torch.stack(h))


def test_no_softplus_by_default():
    arguments = make(length=3)  # negative steps let states grow
    assert torch.equal(selective_scan(**arguments), selective_scan(**arguments, delta_softplus=False))
    assert not torch.allclose(selective_scan(**arguments), selective_scan(**arguments, delta_softplus=True))


@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_gradcheck(backend):
    arguments = make(batch=1, channels=3, length=35, state=2, dtype=torch.float64)

    def function(*tensors):
        named = dict(zip(NAMES, tensors, strict=True))
        return selective_scan(**named, delta_softplus=True, return_last_state=True, backend=backend)

    assert torch.autograd.gradcheck(function, tuple(arguments.values()))


@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_is_causal(backend):
    arguments = make(length=70)
    y = selective_scan(**arguments, delta_softplus=True, backend=backend)
    gradients = torch.autograd.grad(y[:, :, 40].sum(), [arguments['u'], arguments['B']])
    for gradient in gradients:
        assert gradient[..., 41:].abs().max() == 0
        assert gradient[..., 40].abs().max() > 0
        assert gradient[..., 0].abs().max() > 0


def test_three_dimensional_projections_are_one_group():
    arguments = make()
    flat = {**arguments, 'B': arguments['B'][:, 0], 'C': arguments['C'][:, 0]}
    assert torch.equal(selective_scan(**arguments, delta_softplus=True), selective_scan(**flat, delta_softplus=True))


@pytest.mark.parametrize('dtype', FLOATS)
def test_any_strides(dtype):
    plain = make(length=37, dtype=dtype)
    strided = {}
    for name, tensor in plain.items():
        permuted = tensor.detach().transpose(0, -1).contiguous().transpose(0, -1)
        sliced = torch.stack((torch.full_like(permuted, torch.nan), permuted), dim=-1)[..., 1]
        assert tensor.dim() == 1 or not sliced.is_contiguous()
        strided[name] = sliced.requires_grad_()
    for actual, expected in zip(run(strided, 'cpp'), run(plain, 'cpp'), strict=True):
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name])


def test_channels_last_views_keep_their_strides():
    arguments = make()
    u = torch.randn(2, 33, 40).transpose(1, 2)
    assert selective_scan(**{**arguments, 'u': u}, backend='cpp').stride() == u.stride()


def test_expanded_grad_output():
    arguments = make()
    y, again = (selective_scan(**arguments, delta_softplus=True, backend='cpp') for _ in range(2))
    expected = torch.autograd.grad(again, arguments['u'], torch.ones_like(y))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), arguments['u']), expected)


@pytest.mark.parametrize('used', (0, 1))
def test_one_output_used_alone(used):
    arguments = make()
    gradients = []
    for backend in ('cpp', 'reference'):
        output = selective_scan(**arguments, delta_softplus=True, return_last_state=True, backend=backend)[used]
        gradients.append(torch.autograd.grad(output.square().sum(), arguments['delta'])[0])
    assert_close(*gradients, GRADIENT[torch.float32], 'gradient of delta')


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_half_types_compute_in_float32(dtype, backend):
    arguments = {name: tensor.detach() for name, tensor in make().items()}
    half = {name: arguments[name].to(dtype) for name in ('u', 'delta', 'B', 'C', 'z')}
    exact = {**arguments, **{name: tensor.float() for name, tensor in half.items()}}
    options = {'delta_softplus': True, 'return_last_state': True, 'backend': backend}
    y, state = selective_scan(**{**arguments, **half}, **options)
    expected, expected_state = selective_scan(**exact, **options)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(state, expected_state)
    assert state.dtype == torch.float32


def test_autocast_does_not_reach_the_scan():
    arguments = make()
    expected = selective_scan(**arguments, delta_softplus=True)
    with torch.autocast('cpu', torch.bfloat16):
        y = selective_scan(**arguments, delta_softplus=True)
    assert torch.equal(y, expected)


def test_same_result_for_any_number_of_threads():
    arguments = make(channels=100, length=200)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outputs, gradients = run(arguments, 'cpp')
            results.append([*outputs.values(), *gradients.values()])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize('backend', ('reference', 'cpp'))
def test_nan_passes_through(backend):
    arguments = {name: tensor.detach() for name, tensor in make(length=40).items()}
    arguments['u'][0, 3, 10] = torch.nan
    y, state = selective_scan(**arguments, delta_softplus=True, return_last_state=True, backend=backend)
    assert y[0, 3, 10:].isnan().all()
    assert state[0, 3].isnan().all()
    y[0, 3, 10:] = 0
    state[0, 3] = 0
    assert y.isfinite().all()
    assert state.isfinite().all()


@pytest.mark.parametrize('name', ('delta', 'A', 'B', 'C'))
def test_nan_of_a_parameter_passes_through_cpp(name):
    arguments = {key: tensor.detach() for key, tensor in make().items()}
    arguments[name].fill_(torch.nan)
    assert selective_scan(**arguments, backend='cpp').isnan().all()


@pytest.mark.parametrize('scale', (0.0, 1e-20, 1e3, 1e30))
def test_extreme_decay(scale):
    arguments = {name: tensor.detach() for name, tensor in make().items()}
    arguments['A'] *= scale
    actual, expected = (selective_scan(**arguments, delta_softplus=True, backend=b) for b in ('cpp', 'reference'))
    assert_close(actual, expected, FORWARD[torch.float32])


def test_growing_state_overflows_to_infinity_or_nan_and_returns():
    arguments = {name: tensor.detach() for name, tensor in make(length=100).items()}
    arguments['A'] = torch.full_like(arguments['A'], 50.0)
    arguments['delta'] = torch.full_like(arguments['delta'], 4.0)
    assert not selective_scan(**arguments, backend='cpp')[:, :, -1].isfinite().any()


@pytest.mark.parametrize('dtype', FLOATS)
def test_opcheck(dtype):
    arguments = make(dtype=dtype)
    arguments |= {name: arguments[name].detach().squeeze(1).requires_grad_() for name in 'BC'}
    five = tuple(arguments[name] for name in ('u', 'delta', 'A', 'B', 'C'))
    torch.library.opcheck(torch.ops.mmdefocus.selective_scan.default, five)
    transposed = tuple(tensor.detach().transpose(0, -1).contiguous().transpose(0, -1) for tensor in five)
    torch.library.opcheck(torch.ops.mmdefocus.selective_scan.default, transposed)
    _, _, chunk_states = torch.ops.mmdefocus.selective_scan(*five)
    backward = (torch.randn(2, 40, 33, dtype=dtype), None, *five, chunk_states)
    detached = tuple(None if tensor is None else tensor.detach() for tensor in backward)
    torch.library.opcheck(torch.ops.mmdefocus.selective_scan_backward.default, detached)


def test_compiles_without_graph_break():
    arguments = make(length=17)

    def function(**tensors):
        return selective_scan(**tensors, delta_softplus=True, return_last_state=True).__getitem__(0)

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    y, expected = compiled(**arguments), function(**arguments)
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y.square().sum(), list(arguments.values()))
    expected_gradients = torch.autograd.grad(expected.square().sum(), list(arguments.values()))
    for actual, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(actual, other)


def test_backward_stores_no_tensor_of_all_states():
    batch, channels, state, length = 1, 64, 16, 512
    arguments = make(batch, channels, length, state)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        y = selective_scan(**arguments, delta_softplus=True, backend='cpp')
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        y.sum().backward()
    allocations = [event.cpu_memory_usage for event in profile.events()]
    everything = batch * channels * state * length
    assert max(sizes) <= everything // 8
    assert 0 < max(allocations) <= everything * 4 // 4


def test_meta_tensors_give_the_shapes():
    arguments = {name: tensor.detach().to('meta') for name, tensor in make(length=3).items()}
    y, state = selective_scan(**arguments, delta_softplus=True, return_last_state=True)
    assert y.is_meta
    assert (y.shape, state.shape) == ((2, 40, 3), (2, 40, 16))


def test_double_backward():
    arguments = make(batch=1, channels=2, length=4, state=2, dtype=torch.float64)
    u = arguments['u']

    def derivative(backend):
        y = selective_scan(**arguments, delta_softplus=True, backend=backend)
        return torch.autograd.grad(y.square().sum(), arguments['delta'], create_graph=True)[0]

    assert torch.autograd.grad(derivative('reference').sum(), u)[0].abs().sum() > 0
    with pytest.raises(RuntimeError, match=r"double backward; use backend='reference'"):
        torch.autograd.grad(derivative('cpp').sum(), u)
