import pytest
import torch
from test_bandpass_attention import run
from tolerances import FORWARD, GRADIENT, HALF, assert_close, looser
from triton_cases import BandpassAttentionCases, check_half_type, make_on

from mmdefocus.ops import bandpass_attention

pytestmark = pytest.mark.gpu


class TestBandpassAttention(BandpassAttentionCases):
    pass


def test_bfloat16(device):
    """Not among the common cases: Triton's interpreter multiplies no matrices of this type."""
    check_half_type(device, torch.bfloat16)


@pytest.mark.parametrize(('batch', 'length'), [(64, 197), (16, 577), (2, 4705)])
def test_base_network_shapes_equal_the_blocks(device, batch, length):
    arguments = make_on(device, batch=batch, heads=12, length=length, channels=64, values=64)
    rounded = {name: arguments[name].detach().bfloat16() for name in 'qkv'}
    y = bandpass_attention(**{**arguments, **rounded}, backend='triton').float()
    exact = bandpass_attention(**{**arguments, **{name: tensor.float() for name, tensor in rounded.items()}})
    assert_close(y, exact, looser(HALF[torch.bfloat16], 'rounded operands'))


def test_more_heads_than_the_second_grid_dimension_allows(device):
    arguments = make_on(device, batch=33_000, heads=2, length=3, channels=2, values=1)
    y, gradients = run(arguments, backend='triton')
    expected, expected_gradients = run(arguments)
    assert_close(y, expected, FORWARD[torch.float32])
    for name in 'qkv':
        assert_close(gradients[name], expected_gradients[name], GRADIENT[torch.float32], f'gradient of {name}')
