import math

import torch

from mmdefocus.ops.defocus_scan.rotary import learnable_rotary


def test_rotary_equals_the_formula_per_channel():
    torch.manual_seed(0)
    length, channels = 7, 6
    x = torch.randn(2, length, channels, dtype=torch.float64)
    frequencies = torch.rand(channels, dtype=torch.float64)
    positions = torch.arange(length, dtype=torch.float64) / 1.5
    expected = torch.empty_like(x)
    for t in range(length):
        for j in range(channels):
            theta = float(positions[t] * frequencies[j])
            partner = -x[:, t, j + 1] if j % 2 == 0 else x[:, t, j - 1]
            expected[:, t, j] = x[:, t, j] * math.cos(theta) + partner * math.sin(theta)
    torch.testing.assert_close(learnable_rotary(x, positions, frequencies), expected)


def test_every_channel_has_its_own_frequency():
    x = torch.randn(1, 4, 2)
    positions = torch.arange(4.0)
    rotated = learnable_rotary(x, positions, torch.tensor([0.7, 0.0]))
    assert torch.equal(rotated[..., 1], x[..., 1])
    assert not torch.allclose(rotated[:, 1:, 0], x[:, 1:, 0])


def test_frequencies_receive_gradients():
    frequencies = torch.rand(4, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    positions = torch.arange(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(learnable_rotary, (x, positions, frequencies))
