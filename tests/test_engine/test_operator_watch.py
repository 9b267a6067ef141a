"""The search for the operator that makes a non-finite value."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmdefocus.engine.non_finite_modules import origin_of_gradients
from mmdefocus.engine.operator_watch import OperatorWatch
from mmdefocus.ops import causal_conv1d


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Model(nn.Module):
    """Two linear layers around a function."""

    def __init__(self, function, width=4):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(width, width), Function(function), nn.Linear(width, width)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def watch(function, backward=False, x=None):
    model = Model(function)
    x = torch.ones(2, 3, 4) if x is None else x
    with OperatorWatch(model, [x]) as found:
        y = model(x)
        if backward:
            y.sum().backward()
            return origin_of_gradients(model, found)
        return found.origin_of(y)


def filled_mask():
    return torch.full((3, 3), float('-inf')).triu(1)


def listed_mask():
    return torch.tensor([[0, -torch.inf, -torch.inf], [0, 0, -torch.inf], [0, 0, 0]])


def masked_attention(x, mask):
    return (x @ x.mT + mask).softmax(-1) @ x


@pytest.mark.parametrize('backward', [False, True])
@pytest.mark.parametrize('mask', [filled_mask, listed_mask])
def test_infinities_of_masks_do_no_harm(mask, backward):
    assert watch(lambda x: masked_attention(x, mask()), backward) is None


@pytest.mark.parametrize('mask', [filled_mask, listed_mask])
def test_infinities_of_masks_are_not_the_origin_of_others(mask):
    origin = watch(lambda x: masked_attention(x + (x * 0).log(), mask()))
    assert (origin.kind, origin.module, origin.operator) == ('operator', 'middle', 'aten::log')


def test_attention_to_nothing():
    """Softmax makes NaN of a row of infinities that are meant."""
    origin = watch(lambda x: x.masked_fill(torch.ones(3, 1, dtype=torch.bool), float('-inf')).softmax(-1))
    assert (origin.kind, origin.operator) == ('operator', 'aten::_softmax')


def test_an_infinity_that_is_meant_and_not_masked_out():
    x = torch.ones(2, 3)
    model = Function(lambda x: x.masked_fill(x > 0, float('inf')).sum())
    with OperatorWatch(model, [x]) as found:
        origin = found.origin_of(model(x))
    assert (origin.kind, origin.operator) == ('constant', 'aten::masked_fill')


def test_an_infinity_that_is_masked_out_is_not_the_origin():
    origin = watch(lambda x: (x * 0).log().clamp(-1, 1) + (x * 0 - 1).sqrt())
    assert origin.operator == 'aten::sqrt'


def test_an_infinity_that_is_not_selected_is_not_the_origin():
    def select(x):
        unused, broken = (x * 0).log(), (x * 0 - 1).sqrt()
        return torch.where(torch.zeros_like(x, dtype=torch.bool), unused, broken)

    assert watch(select).operator == 'aten::sqrt'


@pytest.mark.parametrize(
    ('function', 'operator'),
    [
        (lambda x: x.clone().mul_(0).log_().add_(1), 'aten::log_'),
        (lambda x: torch.stack([x[0], x[1] / 0]), 'aten::div'),
        (lambda x: x.square().sub(x.square()).reciprocal().reshape(6, 4).view(2, 3, 4), 'aten::reciprocal'),
    ],
)
def test_values_in_place_and_in_views(function, operator):
    origin = watch(function)
    assert origin.operator == operator
    assert origin.module == 'middle'
    assert not origin.output.finite
    assert all(values.finite for _, values in origin.inputs)


@pytest.mark.parametrize(
    'function',
    [
        lambda y, x: y / x.sum((1, 2), keepdim=True),
        lambda y, x: (y.flatten(0, 1) / x.sum((1, 2)).repeat_interleave(3)[:, None]).unflatten(0, (2, 3)),
    ],
)
def test_the_image_that_is_at_fault(function):
    """Also of an operator whose output has the tokens of all images in a row."""
    x = torch.ones(2, 3, 4)
    x[1] = 0
    assert watch(lambda y: function(y, x), x=x).samples == (1,)


def test_the_gradient_of_a_weight_has_no_images():
    x = torch.ones(4, 4)  # as many as the weight has rows
    x[1] = 3e38
    origin = watch(lambda y: y * 1e38, backward=True, x=x)
    assert origin.output.shape == (4, 4)
    assert origin.samples == ()


def test_numpy_makes_it():
    origin = watch(lambda x: x * torch.from_numpy(x.detach().numpy() * float('nan')))
    assert (origin.kind, origin.module, origin.operator) == ('outside', 'middle', 'aten::lift_fresh')


def test_an_operator_of_ours():
    def overflow(x):
        huge = torch.full((3, 2), 3e38)
        return causal_conv1d(x.relu() + 5, huge)

    origin = watch(overflow)
    assert (origin.module, origin.operator) == ('middle', 'mmdefocus::causal_conv1d')


@pytest.mark.parametrize('reentrant', [False, True])
def test_gradients_of_recomputed_layers(reentrant):
    def function(x):
        return checkpoint(lambda y: (y * 0).sqrt() + y, x, use_reentrant=reentrant)

    origin = watch(function, backward=True)
    assert origin.operator == 'aten::div'
    assert origin.node == 'SqrtBackward0'
    if not reentrant:
        assert origin.module == 'middle'


def test_random_numbers_are_those_of_the_first_run():
    model = nn.Sequential(nn.Dropout(0.5), Function(lambda x: x + torch.rand_like(x)), Function(F.alpha_dropout))
    x = torch.ones(4, 5)
    with OperatorWatch(model, [x]) as first:
        narrow = model(x)
    with OperatorWatch(model, [x], first.draws):
        wide = model(x.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide, narrow.double(), rtol=1e-6, atol=1e-6)


def test_layers_in_their_order():
    model = Model(torch.exp)
    with OperatorWatch(model, [torch.ones(2, 4)]) as found:
        model(torch.ones(2, 4))
    assert [(call.name, call.kind, call.number) for call in found.calls] == [
        ('', 'Model', 1),
        ('first', 'Linear', 1),
        ('middle', 'Function', 1),
        ('last', 'Linear', 1),
    ]
    assert [call.inner_calls for call in found.calls] == [3, 0, 0, 0]
    assert found.calls[1].input.largest == 1
    assert found.calls[2].input == found.calls[1].output
