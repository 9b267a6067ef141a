"""Functions of PyTorch in another floating-point type than their code names."""

import pytest
import torch
from torch import nn

from mmdefocus.apis.replay_types import FloatsAs

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    'function',
    [
        lambda x: x.float() @ torch.ones(3, 3, dtype=torch.float32),
        lambda x: torch.cat([x, torch.zeros(2, 3)]) + torch.linspace(0, 1, 3, dtype=torch.float16),
        lambda x: nn.functional.linear(x.half(), torch.eye(3)),
        lambda x: x.new_zeros(2, 3).copy_(torch.rand(2, 3)),
        lambda x: torch.stack([x, x]).to(torch.bfloat16).amax(0),
        lambda x: torch.as_tensor([[1.5, 2.5]]) * x[:, :2],
    ],
)
def test_everything_is_float64(function):
    with FloatsAs(torch.float64, CPU):
        assert function(torch.ones(2, 3)).dtype == torch.float64


def test_other_types_stay():
    with FloatsAs(torch.float64, CPU):
        assert torch.arange(3).dtype == torch.int64
        assert (torch.ones(2) > 0).dtype == torch.bool
        assert torch.ones(2).to(torch.int32).dtype == torch.int32


def test_autocast_has_no_effect():
    with FloatsAs(torch.float32, CPU), torch.autocast('cpu', torch.bfloat16):
        y = torch.full((1, 1), 1.001) @ torch.ones(1, 1)
    assert y.dtype == torch.float32
    assert y.item() == pytest.approx(1.001, abs=1e-6), 'not rounded on the way either'


def test_gradients_pass():
    x = torch.ones(2, requires_grad=True)
    with FloatsAs(torch.float64, CPU):
        (x.half() * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]
