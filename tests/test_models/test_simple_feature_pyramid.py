import pytest
import torch

from mmdefocus.models import DefocusLN2d, SimpleFeaturePyramid


@pytest.mark.parametrize(('in_channels', 'count'), [(768, 5_560_000), (1024, 7_805_184)])
def test_parameter_counts_are_those_of_the_published_detectors(in_channels, count):
    with torch.device('meta'):
        neck = SimpleFeaturePyramid(in_channels, 256)
    assert sum(parameter.numel() for parameter in neck.parameters()) == count


@pytest.mark.parametrize('num_outs', [1, 2, 3, 4, 5])
def test_levels(num_outs):
    neck = SimpleFeaturePyramid(8, 6, num_outs=num_outs)
    levels = neck((torch.randn(2, 8, 6, 9),))
    sizes = [(24, 36), (12, 18), (6, 9), (3, 4), (2, 2)]
    assert [tuple(level.shape) for level in levels] == [(2, 6, *size) for size in sizes[:num_outs]]


def test_fifth_level_takes_every_other_element():
    """As detectron2's LastLevelMaxPool: a maximum over 1 × 1, not over 2 × 2."""
    *_, fourth, fifth = SimpleFeaturePyramid(8, 6, num_outs=5)((torch.randn(1, 8, 12, 16),))
    assert torch.equal(fifth, fourth[..., ::2, ::2])


@pytest.mark.parametrize(('start_level', 'num_outs'), [(1, 3), (2, 1), (2, 3), (3, 1), (3, 2)])
def test_fine_levels_can_be_left_out(start_level, num_outs):
    neck = SimpleFeaturePyramid(8, 6, num_outs=num_outs, start_level=start_level)
    levels = neck((torch.randn(2, 8, 6, 9),))
    sizes = [(24, 36), (12, 18), (6, 9), (3, 4), (2, 2)][start_level : start_level + num_outs]
    assert [tuple(level.shape[2:]) for level in levels] == sizes


@pytest.mark.parametrize(
    ('start_level', 'num_outs'), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 1), (1, 4), (2, 1), (3, 2)]
)
def test_every_parameter_receives_a_gradient(start_level, num_outs):
    neck = SimpleFeaturePyramid(8, 6, num_outs=num_outs, start_level=start_level)
    sum(level.square().sum() for level in neck([torch.randn(2, 8, 4, 4)])).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_default_norm_is_the_published_one():
    norms = [module for module in SimpleFeaturePyramid(8, 6).modules() if isinstance(module, DefocusLN2d)]
    assert len(norms) == 1 + 2 * 4
    assert {norm.eps for norm in norms} == {1e-5}


def test_other_norms():
    neck = SimpleFeaturePyramid(8, 6, norm_cfg={'type': 'GN', 'num_groups': 2})
    assert not any(isinstance(module, DefocusLN2d) for module in neck.modules())
    assert len(neck((torch.randn(1, 8, 4, 4),))) == 4


@pytest.mark.parametrize(
    ('inputs', 'error', 'message'),
    [
        (torch.randn(1, 8, 4, 4), TypeError, 'in a tuple or list, got Tensor'),
        ((torch.randn(1, 8, 4, 4),) * 2, ValueError, r"exactly one feature map \(out_type='featmap'\), got 2"),
        ((torch.randn(1, 4, 4, 4),), ValueError, r'shape \(batch, 8, rows, columns\), got \(1, 4, 4, 4\)'),
        ((torch.randn(2, 8),), ValueError, r'shape \(batch, 8, rows, columns\), got \(2, 8\)'),
        ((torch.randn(2, 8, 1, 5),), ValueError, 'at least 2 x 2 for the level of stride 32, got 1 x 5; use larger'),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        SimpleFeaturePyramid(8, 6)(inputs)


def test_smallest_inputs():
    assert len(SimpleFeaturePyramid(4, 6)((torch.randn(1, 4, 2, 2),))) == 4


def test_init_cfg_is_applied():
    neck = SimpleFeaturePyramid(8, 6, init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    neck.init_weights()
    assert (neck.fpn_convs[0].conv.weight == 0.5).all()


def test_one_pixel_is_enough_without_the_coarse_level():
    assert len(SimpleFeaturePyramid(8, 6, num_outs=3)((torch.randn(1, 8, 1, 1),))) == 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'num_outs': 0}, 'num_outs must be from 1 to 5 with start_level=0'),
        ({'num_outs': 6}, r'from 1 to 5 with start_level=0 \(the last level is stride 64\), got 6'),
        ({'num_outs': 4, 'start_level': 2}, 'from 1 to 3 with start_level=2 .*, got 4'),
        ({'start_level': 4}, 'start_level must be from 0 to 3, got 4'),
        ({'start_level': -1}, 'start_level must be from 0 to 3, got -1'),
        ({'in_channels': 10}, 'in_channels must be a positive multiple of 4, got 10'),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**({'in_channels': 8, 'out_channels': 6} | arguments))
