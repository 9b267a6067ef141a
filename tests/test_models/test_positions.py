import math

import pytest
import torch

from mmdefocus.models.positions import apply_learnable_rotary, initial_frequencies, token_positions


@pytest.mark.parametrize('count', [2, 16])
def test_initial_frequencies_follow_the_formula(count):
    expected = [(100 ** (-j / count) - 0.01) / 0.99 for j in range(1, count + 1)]
    torch.testing.assert_close(initial_frequencies(count), torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_last_frequency_is_zero():
    assert initial_frequencies(16)[-1] == 0


def test_positions_are_divided_by_the_scale():
    assert token_positions(5, 4.0, like=torch.empty(0)).tolist() == [0, 0.25, 0.5, 0.75, 1.0]


def test_positions_count_past_256_and_keep_float64():
    assert token_positions(4706, 1.0, like=torch.empty(0))[-1] == 4705
    assert token_positions(3, 3.0, like=torch.empty(0, dtype=torch.float64)).dtype == torch.float64


def test_rotary_is_the_formula_channel_by_channel():
    torch.manual_seed(0)
    length, channels = 7, 6
    x = torch.randn(2, length, channels, dtype=torch.float64)
    frequencies = torch.rand(channels, dtype=torch.float64)
    positions = torch.arange(length, dtype=torch.float64) / 1.5
    expected = torch.empty_like(x)
    for t in range(length):
        for j in range(channels):
            theta = float(positions[t] * frequencies[j])
            turned = -x[:, t, j + 1] if j % 2 == 0 else x[:, t, j - 1]
            expected[:, t, j] = x[:, t, j] * math.cos(theta) + turned * math.sin(theta)
    torch.testing.assert_close(apply_learnable_rotary(x, positions, frequencies), expected)


def test_every_channel_has_its_own_frequency():
    x = torch.randn(1, 4, 2)
    positions = token_positions(4, 1.0, like=x)
    turned = apply_learnable_rotary(x, positions, torch.tensor([0.7, 0.0]))
    assert torch.equal(turned[..., 1], x[..., 1])
    assert not torch.allclose(turned[:, 1:, 0], x[:, 1:, 0])


def test_frequencies_receive_gradients():
    frequencies = torch.rand(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(apply_learnable_rotary, (x, positions, frequencies))
