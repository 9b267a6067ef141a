import pytest
import torch
from test_neighbourhood_attention import run
from tolerances import FORWARD, GRADIENT, assert_close
from triton_neighbourhood_cases import NeighbourhoodAttentionCases, make_on

from mmdefocus.ops import neighbourhood_attention

pytestmark = pytest.mark.gpu


class TestNeighbourhoodAttention(NeighbourhoodAttentionCases):
    pass


@pytest.mark.parametrize(('batch', 'heads', 'height', 'width'), [(16, 2, 56, 56), (8, 8, 14, 14), (1, 2, 200, 334)])
def test_network_shapes_equal_the_tiles_and_are_reproducible(device, batch, heads, height, width):
    arguments = make_on(device, height, width, 7, batch=batch, heads=heads, channels=32)
    y, gradients = run(arguments, kernel_size=7)
    again, same_gradients = run(arguments, kernel_size=7)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
    expected, expected_gradients = run(exact, kernel_size=7)
    assert torch.equal(y, again)
    assert_close(y.double(), expected, FORWARD[torch.float32])
    for name, gradient in gradients.items():
        assert torch.equal(gradient, same_gradients[name]), name
        tolerance = GRADIENT[torch.float32]
        assert_close(gradient.double(), expected_gradients[name], tolerance, f'gradient of {name}')


def test_triton_is_the_default(device):
    q = torch.randn(1, 2, 14, 14, 32, device=device)
    default = neighbourhood_attention(q, q, q, None, 7)
    assert torch.equal(default, neighbourhood_attention(q, q, q, None, 7, backend='triton'))
