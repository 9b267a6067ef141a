import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdefocus.engine import DefocusActivationCheckpointHook


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.calls = 0

    def forward(self, x, *, scale):
        self.calls += 1
        return torch.tanh(self.linear(x)).exp() * scale


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        self.pool = nn.Identity()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return x


def saved_elements(model, x):
    count = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: count.append(t.numel()) or t, lambda t: t):
        model(x)
    return sum(count)


def hooked(model, modules):
    DefocusActivationCheckpointHook(modules).before_train(SimpleNamespace(model=model))
    return model


@pytest.mark.parametrize('modules', [['layers'], ['layers.0', 'layers.2']])
def test_same_gradients_with_less_memory(modules):
    plain = Model()
    model = hooked(copy.deepcopy(plain), modules)
    x = torch.randn(100, 8)
    for net in (plain, model):
        net(x).square().sum().backward()
    for (name, expected), actual in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(actual.grad, expected.grad), name
    assert [layer.calls for layer in model.layers] == ([2, 2, 2] if modules == ['layers'] else [2, 1, 2])
    assert saved_elements(model, x) < saved_elements(plain, x)


def test_wrapped_for_several_gpus():
    model = Model()
    hooked(nn.DataParallel(model), ['layers'])
    model(torch.randn(2, 8)).sum().backward()
    assert [layer.calls for layer in model.layers] == [2, 2, 2]


def test_does_nothing_in_evaluation():
    model = hooked(Model(), ['layers']).eval()
    model(torch.randn(2, 8)).sum().backward()
    assert [layer.calls for layer in model.layers] == [1, 1, 1]


def test_unknown_module():
    with pytest.raises(ValueError, match=r"no module 'encoder.layers'; its own modules are layers, pool$"):
        hooked(Model(), ['encoder.layers'])


def test_name_instead_of_list():
    with pytest.raises(TypeError, match=r"expected modules to be a list of names, got 'layers'"):
        DefocusActivationCheckpointHook('layers')
