import pytest
import torch

from mmdefocus.ops import defocus_scan


def make(batch=2, length=5, channels=8, state=4):
    return {
        'u': torch.randn(batch, length, channels),
        'dt': torch.randn(batch, length, channels),
        'A': -torch.rand(channels, state),
        'B': torch.randn(batch, length, state),
        'C': torch.randn(batch, length, state),
        'D': torch.randn(channels),
        'z': torch.randn(batch, length, channels),
        'dt_bias': torch.randn(channels),
        'freq': torch.rand(state),
        'positions': torch.arange(float(length)),
        'initial_state': torch.randn(batch, channels, state),
        'group_size': 4,
    }


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'u': torch.randn(2, 8)}, r'expected u of shape \(batch, length, channels\), got \(2, 8\)'),
        ({'A': torch.randn(8)}, r'expected A of shape \(channels, state\), got \(8,\)'),
        ({'u': torch.randn(2, 0, 8)}, r'at least one token, got u of shape \(2, 0, 8\)'),
        ({'A': torch.randn(8, 0)}, r'expected a state of at least one number, got A of shape \(8, 0\)'),
        (
            {'dt': torch.randn(2, 4, 8)},
            r'expected dt of shape \(batch, length, channels\) = \(2, 5, 8\), got \(2, 4, 8\)',
        ),
        ({'z': torch.randn(2, 5, 4)}, r'expected z of shape .* = \(2, 5, 8\), got \(2, 5, 4\)'),
        ({'B': torch.randn(2, 4, 5)}, r'expected B of shape \(batch, length, state\) = \(2, 5, 4\), got \(2, 4, 5\)'),
        ({'C': torch.randn(5, 4)}, r'expected C of shape .*, got \(5, 4\)'),
        ({'A': torch.randn(4, 4)}, r'expected A of shape \(channels, state\) = \(8, 4\), got \(4, 4\)'),
        ({'D': torch.randn(1)}, r'expected D of shape \(channels\) = \(8,\), got \(1,\)'),
        ({'dt_bias': torch.randn(4)}, r'expected dt_bias of shape \(channels\) = \(8,\), got \(4,\)'),
        ({'freq': torch.rand(2)}, r'expected freq of shape \(state\) = \(4,\), got \(2,\)'),
        ({'positions': torch.rand(4)}, r'expected positions of shape \(length\) = \(5,\), got \(4,\)'),
        ({'initial_state': torch.rand(2, 4, 8)}, r'expected initial_state of shape .* = \(2, 8, 4\), got \(2, 4, 8\)'),
        ({'group_size': 3}, 'expected a group_size that divides the 8 channels, got 3'),
        ({'group_size': 0}, 'expected a group_size that divides the 8 channels, got 0'),
        ({'delta_scale': 0.0}, 'expected a positive delta_scale, got 0.0'),
        ({'delta_scale': float('nan')}, 'expected a positive delta_scale, got nan'),
        ({'backend': 'fast'}, "expected backend to be None or one of .*, got 'fast'"),
    ],
)
def test_wrong_values_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        defocus_scan(**{**make(), **changes})


def test_odd_state_with_frequencies_raises():
    with pytest.raises(ValueError, match=r'expected an even state with freq .*, got 3'):
        defocus_scan(**make(state=3))
    defocus_scan(**{**make(state=3), 'freq': None})


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'z': torch.randn(2, 5, 8).bfloat16()}, r'expected z of the type of u \(torch.float32\), got torch.bfloat16'),
        ({'u': torch.randn(2, 5, 8).double()}, 'u is torch.float64 but dt is torch.float32'),
        ({'u': torch.ones(2, 5, 8, dtype=torch.int64)}, 'expected u as float16, .*, got torch.int64'),
        ({'positions': torch.arange(5).bfloat16()}, 'expected positions as torch.float32, got torch.bfloat16'),
        ({'initial_state': torch.randn(2, 8, 4).half()}, 'expected initial_state as torch.float32, got torch.float16'),
        ({'B': [1.0]}, 'expected B to be a tensor, got list'),
    ],
)
def test_wrong_types_raise(changes, message):
    with pytest.raises(TypeError, match=message):
        defocus_scan(**{**make(), **changes})


def test_wrong_environment_variable_raises_unless_a_backend_is_named(monkeypatch):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'fast')
    with pytest.raises(ValueError, match=r"expected the environment variable MMDEFOCUS_BACKEND to be .*, got 'fast'"):
        defocus_scan(**make())
    defocus_scan(**make(), backend='reference')
