"""mmcv's deformable attention with the operator of this package equals that with mmcv's own function."""

import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention, multi_scale_deform_attn

import mmdefocus.models  # noqa: F401 (installs the operator)
from mmdefocus.models.mmcv_sampling import sample

SIDES = [(6, 5), (3, 3)]


def mmcv_function(value, shapes, locations, weights):
    """As in mmcv, which the import above has replaced: the reference of the operator has the same definition."""
    from mmdefocus.ops import deformable_sampling

    return deformable_sampling(value, shapes, locations, weights, backend='reference')


@pytest.mark.parametrize('coordinates', [2, 4])
def test_attention(monkeypatch, coordinates):
    assert multi_scale_deform_attn.multi_scale_deformable_attn_pytorch is sample
    torch.manual_seed(0)
    attention = MultiScaleDeformableAttention(16, num_heads=2, num_levels=2, dropout=0.0, batch_first=True)
    torch.nn.init.normal_(attention.attention_weights.weight)
    torch.nn.init.normal_(attention.sampling_offsets.weight)
    value = torch.randn(2, 39, 16)
    query = torch.randn(2, 7, 16)
    shapes = torch.tensor(SIDES)
    starts = torch.tensor([0, 30])
    points = torch.rand(2, 7, 2, coordinates)
    results = []
    for function in (sample, mmcv_function):
        monkeypatch.setattr(multi_scale_deform_attn, 'multi_scale_deformable_attn_pytorch', function)
        attention.zero_grad()
        y = attention(query, value=value, reference_points=points, spatial_shapes=shapes, level_start_index=starts)
        y.square().sum().backward()
        results.append([y, *(parameter.grad for parameter in attention.parameters())])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
