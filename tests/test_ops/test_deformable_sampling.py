"""Multi-scale deformable sampling: backends against the reference in float64, edges, types and errors."""

import pytest
import torch
from tolerances import FORWARD, GRADIENT, HALF, assert_close

from mmdefocus.ops import deformable_sampling
from mmdefocus.ops.deformable_sampling.reference import deformable_sampling_reference

NAMES = ('value', 'locations', 'weights')
CASES = {
    'one map': dict(sides=[(4, 5)]),
    'several maps': dict(sides=[(7, 5), (4, 3), (2, 2), (1, 1)]),
    'odd channels': dict(sides=[(5, 5), (3, 3)], channels=7),
    'one of everything': dict(sides=[(1, 1)], batch=1, queries=1, heads=1, points=1, channels=1),
    'many heads': dict(sides=[(6, 6)], heads=9, queries=33, channels=24),
}
DTYPES = (torch.float32, torch.float64)


def make(sides, batch=2, queries=6, heads=3, points=4, channels=8):
    """Samples inside the maps, at their edges, and outside."""
    torch.manual_seed(0)
    positions = sum(height * width for height, width in sides)
    samples = (batch, queries, heads, len(sides), points)
    return {
        'value': torch.randn(batch, positions, heads, channels, dtype=torch.float64),
        'shapes': torch.tensor(sides),
        'locations': torch.rand(*samples, 2, dtype=torch.float64) * 1.6 - 0.3,
        'weights': torch.randn(samples, dtype=torch.float64),
    }


def run(arguments, dtype=torch.float64, **options):
    given = {
        name: x.detach().to(dtype, copy=True).requires_grad_() if name in NAMES else x for name, x in arguments.items()
    }
    y = deformable_sampling(**given, **options)
    torch.manual_seed(1)
    y.backward(torch.randn(y.shape, dtype=torch.float64).to(dtype))
    return y.detach(), {name: given[name].grad for name in NAMES}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('case', CASES)
def test_compiled_equals_the_reference(case, dtype):
    # Locations that both types represent: the gradient jumps where a sample passes a position.
    arguments = make(**CASES[case])
    arguments['locations'] = arguments['locations'].float().double()
    expected, gradients = run(arguments, backend='reference')
    y, found = run(arguments, dtype, backend='cpp')
    assert_close(y.double(), expected, FORWARD[dtype])
    for name in NAMES:
        assert_close(found[name].double(), gradients[name], GRADIENT[dtype], name)


def test_the_reference_is_a_sum_over_samples():
    """One sample by hand: halfway between four positions, and at a corner of the map, where one of four is inside."""
    value = torch.arange(1.0, 7.0).view(1, 6, 1, 1)  # 2 rows of 3
    locations = torch.tensor([[1 / 3, 0.5], [0.0, 0.0]]).view(1, 1, 1, 1, 2, 2)
    weights = torch.tensor([1.0, 10.0]).view(1, 1, 1, 1, 2)
    for backend in ('reference', 'cpp'):
        y = deformable_sampling(value, torch.tensor([[2, 3]]), locations, weights, backend=backend)
        assert y.shape == (1, 1, 1)
        assert y.item() == pytest.approx((1 + 2 + 4 + 5) / 4 + 10 * 1 / 4)


def test_gradients_of_the_reference():
    arguments = make([(3, 4), (2, 2)], batch=1, queries=2, heads=2, points=2, channels=3)
    tensors = [arguments[name].requires_grad_() for name in NAMES]

    def call(value, locations, weights):
        return deformable_sampling_reference(value, arguments['shapes'], locations, weights)

    assert torch.autograd.gradcheck(call, tensors)


@pytest.mark.parametrize('threads', [1, 2])
def test_results_do_not_depend_on_the_threads(threads):
    arguments = make([(9, 9), (4, 4)], queries=50)
    expected = run(arguments, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y, gradients = run(arguments, torch.float32)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, expected[0])
    assert all(torch.equal(gradients[name], expected[1][name]) for name in NAMES)


def test_strided_arguments():
    arguments = make([(5, 4), (2, 3)])
    expected, gradients = run(arguments)
    strided = {name: x.transpose(0, 1).contiguous().transpose(0, 1) for name, x in arguments.items()}
    y, found = run(strided)
    assert torch.equal(y, expected)
    assert all(torch.equal(found[name], gradients[name]) for name in NAMES)


@pytest.mark.parametrize('backend', ['reference', 'cpp'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types_compute_in_float32(backend, dtype):
    arguments = make([(6, 5), (3, 3)])
    half = {
        name: x.to(dtype) if name == 'value' else x.float() if name in NAMES else x for name, x in arguments.items()
    }
    exact = half | {name: half[name].double() for name in NAMES}
    with torch.autocast('cpu', torch.bfloat16):
        y = deformable_sampling(**half, backend=backend)
    assert y.dtype == dtype
    assert_close(y.double(), deformable_sampling(**exact, backend='reference'), HALF[dtype])


def test_what_is_not_finite_reaches_the_result():
    arguments = make([(4, 4)], batch=1, queries=3, heads=1)
    arguments['locations'][0, 1, 0, 0, 2, 0] = float('nan')
    y = deformable_sampling(**arguments, backend='cpp')
    assert y[0, 1].isnan().all()
    assert y[0, [0, 2]].isfinite().all()
    arguments['locations'][0, 1, 0, 0, 2, 0] = float('inf')  # outside, as any other number
    assert deformable_sampling(**arguments, backend='cpp').isfinite().all()


def test_torch_knows_the_operator():
    arguments = make([(4, 3), (2, 2)], queries=2)
    torch.library.opcheck(torch.ops.mmdefocus.deformable_sampling.default, tuple(arguments.values()))


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'value': torch.zeros(1, 6, 2)}, ValueError, r'expected value of shape \(batch, positions, heads, channels\)'),
        ({'shapes': torch.tensor([[2.0, 3.0]])}, TypeError, 'expected shapes as torch.int64, got torch.float32'),
        ({'shapes': torch.tensor([[2, 3], [1, 1]])}, ValueError, r'expected shapes of shape \(maps, 2\) = \(1, 2\)'),
        ({'weights': torch.zeros(1, 4, 1, 1, 3)}, ValueError, r'expected locations of shape \(batch, queries, heads'),
        ({'shapes': torch.tensor([[2, 2]])}, RuntimeError, 'as many positions as the maps have, 4, got 6'),
        ({'shapes': torch.tensor([[-2, -3]])}, RuntimeError, 'expected positive sides'),
    ],
)
def test_errors(changes, error, message):
    arguments = {
        'value': torch.zeros(1, 6, 1, 2),
        'shapes': torch.tensor([[2, 3]]),
        'locations': torch.zeros(1, 4, 1, 1, 2, 2),
        'weights': torch.zeros(1, 4, 1, 1, 2),
    }
    deformable_sampling(**arguments)
    with pytest.raises(error, match=message):
        deformable_sampling(**arguments | changes)
