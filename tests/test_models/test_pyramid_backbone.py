"""What the base class gives all pyramidal backbones, with blocks that are one convolution each."""

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.logging import MMLogger
from torch import nn

from mmdefocus.models.backbones import PyramidBackbone, PyramidBlock, arch_table


class ConvBlock(PyramidBlock):
    def __init__(self, channels, drop_path_rate):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.drop_path = DropPath(drop_path_rate)

    def reset_parameters(self):
        nn.init.constant_(self.conv.weight, 0.25)

    def forward(self, x):
        return x + self.drop_path(self.conv(x))


class BatchNormed(nn.Sequential):
    def __init__(self, in_channels, out_channels, stride):
        super().__init__(nn.Conv2d(in_channels, out_channels, stride, stride), nn.BatchNorm2d(out_channels))

    def reset_parameters(self):
        self[0].reset_parameters()


class ToyPyramid(PyramidBackbone):
    arch_zoo = arch_table(
        ('embed_dims', 'depths', 'word', 'flag'),
        two_wide=((8, 8, 16, 16), (1, 1, 2, 1), 'a', True),
        two_wide_deep=((8, 8, 16, 16), (2, 1, 3, 1), 'a', True),
        narrow=((4, 4, 4, 4), (1, 1, 1, 1), 'b', False),
    )

    def depths_of(self, sizes):
        return sizes['depths']

    def make_downsample(self, sizes, stage, in_channels):
        return BatchNormed(in_channels, sizes['embed_dims'][stage], 2 if stage else 4)

    def make_block(self, sizes, stage, index, drop_path_rate):
        return ConvBlock(sizes['embed_dims'][stage], drop_path_rate)

    def make_norm(self, channels):
        return nn.GroupNorm(1, channels)


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def build(arch='two-wide', **options):
    return ToyPyramid(arch, **options)


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        ({'embed_dims': [8] * 3}, r"arch\['embed_dims'\] must be a list of 4 values, each a positive integer, got"),
        ({'embed_dims': [8, 8, 8, 0]}, r"arch\['embed_dims'\] must be a list of 4 values, .*got \[8, 8, 8, 0\]"),
        ({'embed_dims': 8}, r"arch\['embed_dims'\] must be a list of 4"),
        ({'depths': [1, 1, 1, True]}, r"arch\['depths'\] must be a list of 4"),
        ({'word': 1}, r"arch\['word'\] must be text, got 1"),
        ({'flag': 1}, r"arch\['flag'\] must be True or False, got 1"),
        ({'colour': 1}, r"missing \[\], unknown \['colour'\]"),
    ],
)
def test_an_arch_with_wrong_values_is_refused(arch, message):
    complete = dict(embed_dims=[8] * 4, depths=[1] * 4, word='x', flag=False)
    assert build(complete).embed_dims == (8, 8, 8, 8)
    with pytest.raises(ValueError, match=message):
        build({**complete, **arch})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'arch': 'huge'}, r"arch must be one of \['two-wide', 'two-wide-deep', 'narrow'\] or a dict, got 'huge'"),
        ({'drop_path_rate': 1.0}, r'drop_path_rate must be in \[0, 1\), got 1.0'),
        ({'in_channels': 0}, r'in_channels must be a positive integer, got 0'),
        ({'drop_path_rate': '0.1'}, r"drop_path_rate must be in \[0, 1\), got '0.1'"),
        ({'in_channels': True}, r'in_channels must be a positive integer, got True'),
        ({'frozen_stages': 5}, r'frozen_stages must be a whole number from -1 to 4, got 5'),
        ({'frozen_stages': 1.5}, r'frozen_stages must be a whole number from -1 to 4, got 1.5'),
        ({'out_indices': (True,)}, r'out_indices must be some of 0, 1, 2, 3, got \(True,\)'),
        ({'out_indices': (1.0,)}, r'out_indices must be some of 0, 1, 2, 3, got \(1.0,\)'),
        ({'out_indices': ()}, r'out_indices must be some of 0, 1, 2, 3, got \(\)'),
        ({'out_indices': (1, 4)}, r'out_indices must be some of 0, 1, 2, 3, got \(1, 4\)'),
        ({'out_indices': (2, 1)}, r'out_indices must ascend, got \(2, 1\)'),
    ],
)
def test_arguments_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_single_output_is_a_list_of_one():
    with pytest.raises(TypeError, match=r'out_indices must be a list of stages such as \(3,\), got 3'):
        build(out_indices=3)


def test_unknown_arguments_are_refused():
    with pytest.raises(
        TypeError, match=r"^ToyPyramid has no argument 'drop_path' \(did you mean 'drop_path_rate'\?\)$"
    ):
        build(drop_path=0.1)


@pytest.mark.parametrize(
    ('shape', 'error', 'message'),
    [
        (
            (2, 3, 31, 64),
            ValueError,
            r'expected images of at least one cell of the last stage \(32 x 32 pixels\), got 31 x 64',
        ),
        ((2, 1, 32, 32), ValueError, r'expected images of shape \(batch, 3, height, width\), got \(2, 1, 32, 32\)'),
        ((3, 32, 32), ValueError, r'expected images of shape'),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, error, message):
    with pytest.raises(error, match=message):
        build()(torch.zeros(shape))
    with pytest.raises(TypeError, match=r'expected floating-point images, got torch.uint8'):
        build()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_outputs_are_the_normed_maps_of_the_chosen_stages():
    backbone, images = build(out_indices=(0, 2, 3)).eval(), torch.randn(2, 3, 64, 96)
    maps = backbone(images)
    assert [tuple(x.shape) for x in maps] == [(2, 8, 16, 24), (2, 16, 4, 6), (2, 16, 2, 3)]
    assert all(x.mean((1, 2, 3)).abs().max() < 1e-6 for x in maps)
    assert {name.split('.')[0] for name in backbone.state_dict()} >= {'norm0', 'norm2', 'norm3'}
    assert not any(name.startswith('norm1') for name in backbone.state_dict())


def test_drop_path_grows_over_all_blocks():
    rates = [block.drop_path.drop_prob for block in build(drop_path_rate=0.4).layers]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_recomputed_blocks_have_the_same_gradients():
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = build(with_cp=with_cp).double()
        backbone(images)[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))


@pytest.mark.parametrize('frozen', range(-1, 5))
def test_frozen_stages_neither_train_nor_leave_evaluation_mode(frozen):
    backbone = build(frozen_stages=frozen, out_indices=(0, 1, 2, 3)).train()
    names = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    expected = {
        name
        for name, _ in backbone.named_parameters()
        if (number := int(name.split('.')[1] if '.' in name and not name.startswith('norm') else name[4])) <= frozen - 1
        or (name.startswith('downsample_layers.0') and frozen >= 0)
        if not (name.startswith('downsample_layers') and number > max(frozen - 1, 0))
    }
    assert names == expected
    assert backbone.downsample_layers[0].training is (frozen < 0)
    assert backbone.stages[3].training is (frozen < 4)


def test_norm_eval_keeps_running_statistics():
    frozen, moving = build(norm_eval=True).train(), build().train()
    for backbone in (frozen, moving):
        backbone(torch.randn(4, 3, 32, 32) + 5)
    assert frozen.downsample_layers[0][1].running_mean.abs().max() == 0
    assert moving.downsample_layers[0][1].running_mean.abs().max() > 0


def test_layer_depths_follow_the_blocks():
    backbone = build(out_indices=(2, 3))
    depths = {
        name: backbone.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in backbone.named_parameters()
    }
    assert all(count == 7 for _, count in depths.values())
    assert depths['downsample_layers.0.0.weight'][0] == 0
    assert depths['stages.0.0.conv.weight'][0] == depths['stages.1.0.conv.weight'][0] - 1 == 1
    assert depths['downsample_layers.2.0.weight'][0] == depths['stages.2.0.conv.weight'][0] == 3
    assert depths['stages.3.0.conv.weight'][0] == 5
    assert depths['norm2.weight'][0] == 6
    assert backbone.get_layer_depth('head.fc.weight', 'backbone.') == (6, 7)


def test_weights_of_another_arch_are_refused_by_name():
    for theirs, message in (
        ('narrow', r"expected weights of arch='two-wide' .*got weights of arch='narrow' \(embed_dims=\[4, 4, 4, 4\]"),
        ('two-wide-deep', r"got weights of arch='two-wide-deep' .*blocks=\[2, 1, 3, 1\]\); give ToyPyramid the arch"),
    ):
        with pytest.raises(RuntimeError, match=message):
            build().load_state_dict(build(theirs).state_dict())


def test_a_part_of_the_weights_loads_without_strict():
    part = {name: value for name, value in build().state_dict().items() if not name.startswith('stages.3')}
    missing, unexpected = build().load_state_dict(part, strict=False)
    assert missing
    assert all(name.startswith('stages.3') for name in missing)
    assert unexpected == []


def test_a_detector_loads_a_classifier_and_the_reverse(tmp_path, log):
    classifier = build()
    nn.init.normal_(classifier.norm3.weight)
    torch.save(
        {'state_dict': {f'backbone.{name}': value for name, value in classifier.state_dict().items()}},
        tmp_path / 'c.pth',
    )
    detector = build(out_indices=(0, 1, 2, 3), init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth')))
    detector.init_weights()
    assert torch.equal(detector.norm3.weight, classifier.norm3.weight)
    assert 'norm0.bias, norm0.weight, norm1.bias' in log.text
    assert 'start from initial values' in log.text
    nn.init.normal_(detector.norm3.weight)
    assert classifier.load_state_dict(detector.state_dict()).missing_keys == []
    assert torch.equal(detector.norm3.weight, classifier.norm3.weight)


@pytest.mark.parametrize('missing', ['stages.3.0.conv', 'norm3'])
def test_pretrained_weights_without_a_block_or_the_last_norm_are_refused(missing, tmp_path):
    part = {name: value for name, value in build().state_dict().items() if not name.startswith(missing)}
    torch.save({'state_dict': part}, tmp_path / 'part.pth')
    backbone = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'part.pth')))
    with pytest.raises(ValueError, match=rf'2 missing \({missing}\.weight'):
        backbone.init_weights()
