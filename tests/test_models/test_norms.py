import pytest
import torch
from mmcv.cnn import build_norm_layer

from mmdefocus.models.norms import DefocusLN2d, LayerNorm, RMSNorm


def test_rms_norm_is_the_formula():
    x = torch.randn(2, 5, 8)
    norm = RMSNorm(8, eps=1e-5)
    norm.weight.data.uniform_(0.5, 2)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize('norm', [RMSNorm(8, eps=1e-5), LayerNorm(8, eps=1e-5)], ids=['rms', 'layer'])
def test_half_weights_give_half_results_from_float32_statistics(norm):
    x = torch.randn(2, 5, 8) * 1000 + 3000
    expected = norm.float()(x)
    result = norm.bfloat16()(x)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected.bfloat16())


def test_map_norm_normalises_every_pixel_over_channels():
    x = torch.randn(2, 6, 3, 4)
    norm = DefocusLN2d(6)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_map_norm_has_the_epsilon_that_it_is_given():
    norm = DefocusLN2d(2, eps=3.0)
    assert norm.eps == 3.0
    x = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(norm(x), x / 2)


def test_map_norm_keeps_the_dtype_of_its_input():
    assert DefocusLN2d(4)(torch.randn(1, 4, 2, 2).bfloat16()).dtype == torch.bfloat16


def test_mmcv_builds_the_map_norm_under_the_published_name():
    name, norm = build_norm_layer({'type': 'DefocusLN2d', 'eps': 1e-5}, 8)
    assert name == 'norm_layer'
    assert isinstance(norm, DefocusLN2d)
    assert norm.eps == 1e-5
