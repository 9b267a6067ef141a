import pytest
import torch
from test_selective_scan import make

from mmdefocus.ops import backends, selective_scan


def call(**changes):
    return selective_scan(**{**make(), **changes})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'u': torch.zeros(40, 33)}, r'expected u of shape \(batch, channels, length\), got \(40, 33\)'),
        ({'u': torch.zeros(2, 40, 0)}, r'at least one step, got u of shape \(2, 40, 0\)'),
        ({'delta': torch.zeros(2, 40, 32)}, r'expected delta of shape .* = \(2, 40, 33\), got \(2, 40, 32\)'),
        ({'A': torch.zeros(16)}, r'expected A of shape \(channels, state\), got \(16,\)'),
        ({'A': torch.zeros(40, 0)}, r'expected a state of at least one number, got A of shape \(40, 0\)'),
        ({'A': torch.zeros(39, 16)}, r'expected A of shape .* = \(40, 16\), got \(39, 16\)'),
        ({'B': torch.zeros(2, 1, 15, 33)}, r'expected B of shape .* = \(2, 1, 16, 33\), got \(2, 1, 15, 33\)'),
        ({'B': torch.zeros(2, 16, 32)}, r'expected B of shape .* = \(2, 16, 33\), got \(2, 16, 32\)'),
        ({'B': torch.zeros(16)}, r'expected B of shape .*, got \(16,\)'),
        ({'C': torch.zeros(16, 40)}, r'expected C of shape .* = \(40, 16\), got \(16, 40\)'),
        ({'B': torch.zeros(2, 3, 16, 33)}, r'groups of B that divides the 40 channels, got 3'),
        ({'B': torch.zeros(2, 0, 16, 33)}, r'groups of B that divides the 40 channels, got 0'),
        ({'B': torch.zeros(2, 2, 16, 33)}, r'same number of groups, got 2 and 1'),
        ({'D': torch.zeros(39)}, r'expected D of shape .* = \(40,\), got \(39,\)'),
        ({'z': torch.zeros(2, 33, 40)}, r'expected z of shape .* = \(2, 40, 33\), got \(2, 33, 40\)'),
        ({'delta_bias': torch.zeros(40, 1)}, r'expected delta_bias of shape .* = \(40,\), got \(40, 1\)'),
        ({'D': torch.zeros(40, device='meta')}, r'u is on cpu but D is on meta; move them to one device'),
        ({'backend': 'fast'}, r"expected backend to be None or one of .*, got 'fast'"),
    ],
)
def test_wrong_values_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'u': torch.zeros(2, 40, 33, dtype=torch.int64)}, r'expected u as float16, .* got torch.int64'),
        ({'A': torch.zeros(40, 16, dtype=torch.complex64)}, r'expected A as float16, .* got torch.complex64'),
        ({'A': torch.zeros(40, 16, dtype=torch.float64)}, r'u is torch.float32 but A is torch.float64'),
        ({'D': 1.0}, r'expected D to be a tensor, got float'),
        ({'gate': None}, r"unexpected keyword argument 'gate'"),
    ],
)
def test_wrong_types_raise(changes, message):
    with pytest.raises(TypeError, match=message):
        call(**changes)


def test_named_backend_that_cannot_run_raises_the_reason(monkeypatch):
    monkeypatch.setattr(backends, '_NO_EXTENSION', 'the extension is not built')
    selective_scan(**make())
    with pytest.raises(RuntimeError, match="backend 'cpp' cannot run: the extension is not built"):
        selective_scan(**make(), backend='cpp')


@pytest.mark.parametrize(
    ('index', 'tensor', 'message'),
    [
        (0, torch.zeros(2, 40, 33, dtype=torch.bfloat16), 'computes in float32 or float64, got BFloat16'),
        (0, torch.zeros(2, 40, 0), r'with L > 0, got \[2, 40, 0\]'),
        (1, torch.zeros(2, 40, 34), r'expected delta of shape \[2, 40, 33\], got \[2, 40, 34\]'),
        (2, torch.zeros(40), r'expected A of shape \(E, N\) with N > 0, got \[40\]'),
        (2, torch.zeros(40, 0), r'expected A of shape \(E, N\) with N > 0, got \[40, 0\]'),
        (3, torch.zeros(2, 3, 16, 33), r'expected B of shape \[2, 16, 33\], got \[2, 3, 16, 33\]'),
        (4, torch.zeros(2, 16, 33, dtype=torch.float64), 'expected C as Float on cpu, got Double on cpu'),
    ],
)
def test_direct_calls_check_arguments(index, tensor, message):
    arguments = [make()[name].detach().squeeze(1) for name in ('u', 'delta', 'A', 'B', 'C')]  # without groups
    arguments[index] = tensor
    with pytest.raises(RuntimeError, match=message):
        torch.ops.mmdefocus.selective_scan(*arguments)
