import itertools
import math

import pytest
import torch
from tolerances import FORWARD, GRADIENT, HALF, assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmdefocus.ops import neighbourhood_attention
from mmdefocus.ops.neighbourhood_attention import tiles

# Height, width, K: one window, a window in one direction, several tiles, a last tile of few rows, no neighbours.
MAPS = [(7, 7, 7), (7, 30, 7), (14, 14, 7), (20, 13, 7), (14, 14, 3), (5, 6, 3), (9, 17, 3), (3, 3, 3), (4, 9, 1)]
NAMES = ('q', 'k', 'v', 'bias')


def make(height=9, width=11, kernel_size=3, batch=2, heads=3, channels=5, dtype=torch.float32):
    """Make random arguments by name."""
    side = 2 * kernel_size - 1
    shapes = dict.fromkeys('qkv', (batch, heads, height, width, channels)) | {'bias': (heads, side, side)}
    return {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}


def run(arguments, function=neighbourhood_attention, **options):
    """Return the output and the gradients of all arguments, for the same output gradient in every call."""
    y = function(**arguments, **{'kernel_size': 3, **options})
    grad_output = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    return y, dict(zip(arguments, torch.autograd.grad(y, list(arguments.values()), grad_output), strict=True))


def loop(q, k, v, bias, kernel_size, scale=None):
    """Attend from one pixel after the other, by the formula."""
    height, width, channels = q.shape[2:]
    scale = 1 / math.sqrt(channels) if scale is None else scale
    outputs = []
    for i, j in itertools.product(range(height), range(width)):
        top = min(max(i - kernel_size // 2, 0), height - kernel_size)
        left = min(max(j - kernel_size // 2, 0), width - kernel_size)
        rows, columns = range(top, top + kernel_size), range(left, left + kernel_size)
        own = torch.stack(
            [bias[:, y - i + kernel_size - 1, x - j + kernel_size - 1] for y, x in itertools.product(rows, columns)], 1
        )
        keys, values = (t[:, :, rows][:, :, :, columns].flatten(2, 3) for t in (k, v))
        weights = (scale * (q[:, :, i, j, None] * keys).sum(-1) + own).softmax(-1)
        outputs.append((weights[..., None] * values).sum(2))
    return torch.stack(outputs, 2).unflatten(2, (height, width))


def assert_same(actual, expected, forward, gradient):
    assert_close(actual[0], expected[0], forward, 'y')
    for name, tensor in expected[1].items():
        if tensor.any():
            assert_close(actual[1][name], tensor, gradient, f'gradient of {name}')
        else:  # without neighbours, the weight is 1, whatever the logit
            assert actual[1][name].abs().max() <= gradient, f'gradient of {name}'


@pytest.mark.parametrize(('height', 'width', 'kernel_size'), MAPS)
@pytest.mark.parametrize('backend', (None, 'reference'))
def test_equals_the_loop(backend, height, width, kernel_size):
    arguments = make(height, width, kernel_size, batch=1, heads=2, channels=3, dtype=torch.float64)
    expected = run(arguments, loop, kernel_size=kernel_size)
    actual = run(arguments, kernel_size=kernel_size, backend=backend)
    assert_same(actual, expected, FORWARD[torch.float64], GRADIENT[torch.float64])


@pytest.mark.parametrize(('height', 'width', 'kernel_size'), [(40, 56, 7), (33, 40, 7), (41, 27, 13), (8, 8, 3)])
def test_tiles_equal_the_reference(height, width, kernel_size):
    arguments = make(height, width, kernel_size, batch=1, heads=1, channels=4)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
    y, gradients = run(arguments, kernel_size=kernel_size)
    actual = y.double(), {name: gradient.double() for name, gradient in gradients.items()}
    expected = run(exact, kernel_size=kernel_size, backend='reference')
    assert_same(actual, expected, FORWARD[torch.float32], GRADIENT[torch.float32])


def test_gradcheck():
    arguments = make(5, 9, 3, batch=1, heads=1, channels=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: neighbourhood_attention(*x, 3, 0.7), tuple(arguments.values()))


@pytest.mark.parametrize('backend', (None, 'reference'))
def test_scale_and_bias_are_optional(backend):
    arguments = make(dtype=torch.float64)
    zeros = torch.zeros_like(arguments['bias'])
    y = neighbourhood_attention(**{**arguments, 'bias': None}, kernel_size=3, scale=0.3, backend=backend)
    assert_close(y, loop(**{**arguments, 'bias': zeros}, kernel_size=3, scale=0.3), FORWARD[torch.float64])
    y = neighbourhood_attention(**arguments, kernel_size=3, scale=0.0, backend=backend)
    assert_close(y, loop(**arguments, kernel_size=3, scale=0.0), FORWARD[torch.float64])


def test_a_pixel_sees_its_window_only():
    arguments = make(20, 30, 7)
    y = neighbourhood_attention(**arguments, kernel_size=7)
    for (i, j), (top, left) in {(1, 12): (0, 9), (10, 29): (7, 23), (19, 0): (13, 0)}.items():
        for gradient in torch.autograd.grad(y[:, :, i, j].square().sum(), [arguments['k'], arguments['v']], None, True):
            seen = gradient.abs().amax((0, 1, 4)) > 0
            window = torch.zeros(20, 30, dtype=torch.bool)
            window[top : top + 7, left : left + 7] = True
            assert torch.equal(seen, window), (i, j)


class LargestTensor(TorchDispatchMode):
    """Record the largest storage of all results, in elements of float32."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // 4)
        return result


def largest_tensors(height, width):
    q, k, v, bias = (tensor.detach() for tensor in make(height, width, 7, batch=1, heads=1).values())
    with LargestTensor() as forward:
        y = tiles.attend(q, k, v, bias, 7, 1.0)
    with LargestTensor() as backward:
        tiles.attend_backward(y, q, k, v, bias, 7, 1.0)
    return forward.largest, backward.largest


def test_no_tensor_has_a_number_for_every_pair_of_pixels():
    small = largest_tensors(40, 40)
    assert 0 < max(small) < 1600**2 // 50
    for large, once in zip(largest_tensors(160, 40), small, strict=True):
        assert large <= 4 * once


def peak_bytes(height, width):
    arguments = make(height, width, 7, batch=1, heads=1)
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True
    ) as profile:
        neighbourhood_attention(**arguments, kernel_size=7).sum().backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    return max(itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_memory_is_linear_in_the_number_of_pixels():
    once, twice, four_times = peak_bytes(40, 40), peak_bytes(40, 80), peak_bytes(80, 80)
    assert once < 4 * 1600**2 // 4
    assert twice <= 2.1 * once
    assert four_times <= 4.2 * once


@pytest.mark.parametrize('dtype', HALF)
def test_half_types_compute_in_float32(dtype):
    half = {name: tensor.detach().to(dtype) for name, tensor in make().items()}
    exact = {name: tensor.float() for name, tensor in half.items()}
    y = neighbourhood_attention(**half, kernel_size=3)
    assert y.dtype == dtype
    assert torch.equal(y, neighbourhood_attention(**exact, kernel_size=3).to(dtype))


def test_autocast_does_not_reach_it():
    arguments = make()
    expected = run(arguments)
    with torch.autocast('cpu', torch.bfloat16):
        actual = run(arguments)
    assert torch.equal(actual[0], expected[0])
    for name in NAMES:
        assert torch.equal(actual[1][name], expected[1][name]), name


def test_any_strides():
    """As the slices of a projection's output that a mixer passes on, and a transposed table."""
    qkv = torch.randn(2, 9, 11, 3, 3, 5, requires_grad=True)
    bias = torch.randn(5, 5, 3, requires_grad=True)
    views = dict(zip(NAMES, (*qkv.permute(3, 0, 4, 1, 2, 5), bias.permute(2, 0, 1)), strict=True))
    copies = {name: view.detach().clone().contiguous().requires_grad_() for name, view in views.items()}
    assert_same(run(views), run(copies), 0, 0)


def test_the_arguments_stay_as_they_are():
    """Maps that tiles divide need no padding, which copies."""
    arguments = make(8, 8, 3, batch=1, heads=1)
    before = {name: tensor.detach().clone() for name, tensor in arguments.items()}
    run(arguments, scale=0.5)
    for name, tensor in before.items():
        assert torch.equal(arguments[name], tensor), name


def test_expanded_output_gradient():
    arguments = list(make().values())
    y = neighbourhood_attention(*arguments, 3)
    for actual, expected in zip(
        torch.autograd.grad(y.sum(), arguments, retain_graph=True),
        torch.autograd.grad(y, arguments, torch.ones_like(y)),
        strict=True,
    ):
        assert torch.equal(actual, expected)


def test_without_images():
    arguments = make(batch=0)
    y, gradients = run(arguments)
    assert y.shape == (0, 3, 9, 11, 5)
    assert not gradients['bias'].any()


@pytest.mark.parametrize('name', 'qkv')
def test_nan_passes_through(name):
    arguments = {key: tensor.detach() for key, tensor in make(20, 20).items()}
    arguments[name][:, :, 10, 10] = torch.nan
    y = neighbourhood_attention(**arguments, kernel_size=3)
    assert y[:, :, 10, 10].isnan().all()
    assert y[:, :, :5].isfinite().all()


def test_opcheck():
    inputs = (*make(dtype=torch.float64).values(), 3, 0.5)
    torch.library.opcheck(torch.ops.mmdefocus.neighbourhood_attention.default, inputs)
    detached = [tensor.detach() for tensor in inputs[:4]]
    torch.library.opcheck(
        torch.ops.mmdefocus.neighbourhood_attention_backward.default, (detached[0], *detached, *inputs[4:])
    )


@pytest.mark.parametrize('dynamic', (False, True))
def test_compiles_without_graph_break(dynamic):
    def function(q, k, v, bias):
        return neighbourhood_attention(q, k, v, bias, 3)

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    for height in (9, 12):
        arguments = make(height)
        assert_same(run(arguments, lambda kernel_size, **tensors: compiled(**tensors)), run(arguments), 1e-6, 1e-6)


def test_exports_and_gives_the_shape_of_meta_tensors():
    class Attention(torch.nn.Module):
        def forward(self, q, k, v, bias):
            return neighbourhood_attention(q, k, v, bias, 3)

    inputs = tuple(tensor.detach() for tensor in make().values())
    assert torch.equal(torch.export.export(Attention(), inputs).module()(*inputs), Attention()(*inputs))
    y = Attention()(*(tensor.to('meta') for tensor in inputs))
    assert y.is_meta
    assert y.shape == (2, 3, 9, 11, 5)


def test_double_backward():
    arguments = make(4, 4, batch=1, heads=1, dtype=torch.float64)

    def derivative(backend):
        y = neighbourhood_attention(**arguments, kernel_size=3, backend=backend)
        return torch.autograd.grad(y.square().sum(), arguments['bias'], create_graph=True)[0].square().sum()

    assert torch.autograd.grad(derivative('reference'), arguments['q'])[0].any()
    with pytest.raises(RuntimeError, match=r"neighbourhood_attention: .* double backward; use backend='reference'"):
        torch.autograd.grad(derivative(None), arguments['q'])


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        (
            {'q': torch.zeros(3, 9, 11, 5)},
            ValueError,
            r'q of shape \(batch, heads, height, width, channels\), got \(3,',
        ),
        ({'q': torch.zeros(2, 0, 9, 11, 5)}, ValueError, r'at least one head of one channel, got q of shape \(2, 0,'),
        ({'q': torch.zeros(2, 3, 9, 11, 0)}, ValueError, r'at least one head of one channel, got .* 11, 0\)'),
        ({'k': torch.zeros(2, 3, 9, 12, 5)}, ValueError, r'k of shape .* = \(2, 3, 9, 11, 5\), got \(2, 3, 9, 12, 5\)'),
        ({'v': torch.zeros(2, 3, 9, 11, 4)}, ValueError, r'v of shape .* = \(2, 3, 9, 11, 5\), got \(2, 3, 9, 11, 4\)'),
        ({'bias': torch.zeros(2, 5, 5)}, ValueError, r'bias of shape .* = \(3, 5, 5\), got \(2, 5, 5\)'),
        (
            {'bias': torch.zeros(3, 3, 3)},
            ValueError,
            r'bias of shape \(heads, 2 \* kernel_size - 1, .* got \(3, 3, 3\)',
        ),
        ({'kernel_size': 4}, ValueError, 'an odd kernel_size of at least 1, got 4'),
        ({'kernel_size': -1}, ValueError, 'an odd kernel_size of at least 1, got -1'),
        (
            {'kernel_size': 11},
            ValueError,
            r'kernel_size = 11 rows and columns, got 9 x 11; pad it at the bottom and on',
        ),
        ({'bias': torch.zeros(3, 5, 5, device='meta')}, ValueError, 'q is on cpu but bias is on meta'),
        ({'bias': torch.zeros(3, 5, 5).double()}, TypeError, 'q is torch.float32 but bias is torch.float64'),
        ({'k': torch.zeros(2, 3, 9, 11, 5).int()}, TypeError, 'expected k as float16, .* got torch.int32'),
        ({'backend': 'cpp'}, RuntimeError, "'cpp' does not have this operator; those that do: triton, reference"),
        ({'backend': 'triton'}, RuntimeError, "'triton' cannot run: its kernels run on GPU tensors, got .* on cpu"),
    ],
)
def test_wrong_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        neighbourhood_attention(**{**make(), 'kernel_size': 3, **changes})
