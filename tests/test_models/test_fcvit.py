"""The FCViT backbone: sizes, options and initial values."""

import copy
import math

import pytest
import torch
from fcvit_official import make_classifier
from mmengine.registry import MODELS
from torch import nn

from mmdefocus.models import FCViT
from mmdefocus.models.map_mixers.global_context import GlobalContext, GlobalContextMixer

ALL = (0, 1, 2, 3)
SMALL = dict(
    embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), mixer_ratios=(2, 2, 1, 1), num_heads=4, kernel_sizes=(3, 5)
)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def make(arch='nano', **kwargs):
    """Return a network whose branches have an effect, with the same values each time."""
    torch.manual_seed(0)
    return FCViT(arch, **{'layer_scale': 0.5, **kwargs})


@pytest.mark.parametrize(
    ('arch', 'with_head', 'without_head', 'four_outputs', 'entries'),
    [
        ('tiny', 4_784_752, 4_463_752, 4_464_264, 500),
        ('b12', 14_701_832, 14_188_832, 14_189_856, 464),
        ('b24', 26_960_232, 26_447_232, 26_448_256, 896),
        ('b48', 51_477_032, 50_964_032, 50_965_056, 1760),
    ],
)
def test_published_sizes(arch, with_head, without_head, four_outputs, entries):
    with torch.device('meta'):
        classifier, pyramid = make_classifier(arch), FCViT(arch, out_indices=ALL)
    assert count(classifier) == with_head
    assert count(classifier.backbone) == without_head
    assert count(pyramid) == four_outputs
    assert len(classifier.state_dict()) == entries


def test_published_sizes_of_the_parts():
    with torch.device('meta'):
        tiny, b12 = make_classifier('tiny'), FCViT('b12')
    backbone = tiny.backbone
    assert [count(layer) for layer in backbone.downsample_layers] == [4_800, 18_624, 92_640, 461_760]
    assert [count(stage) for stage in backbone.stages] == [90_768, 284_256, 1_423_960, 2_086_304]
    assert [count(stage[0]) for stage in backbone.stages] == [30_256, 94_752, 284_792, 1_043_152]
    assert (count(backbone.norm3), count(tiny.head)) == (640, 321_000)
    blocks = [stage[0] for stage in b12.stages]
    assert [count(block) for block in blocks] == [94_752, 326_656, 1_043_152, 2_578_336]
    assert [count(block.token_mixer) for block in blocks] == [23_136, 52_352, 207_632, 455_072]
    assert [count(block.token_mixer.gc1) for block in blocks] == [1_632, 6_320, 38_816, 98_960]


def test_an_arch_of_ones_own():
    network = make(SMALL, in_channels=1, out_indices=ALL)
    assert [len(blocks) for blocks in network.stages] == [1, 2, 1, 1]
    assert network.stages[1][1].token_mixer.dw2.kernel_size == (5, 5)
    assert network.stages[2][0].channel_mixer.dwconv.in_channels == 24
    assert network.stages[3][0].token_mixer.gc2.rescale_weight.shape == (4,)
    assert [y.shape for y in network(torch.randn(1, 1, 64, 64))] == [
        (1, 8, 16, 16),
        (1, 16, 8, 8),
        (1, 24, 4, 4),
        (1, 32, 2, 2),
    ]
    with pytest.raises(ValueError, match=r"missing \['kernel_sizes'\], unknown \[\]"):
        FCViT({key: value for key, value in SMALL.items() if key != 'kernel_sizes'})
    with pytest.raises(TypeError, match=r"FCViT has no argument 'layer_scales' \(did you mean 'layer_scale'\?\)"):
        FCViT('nano', layer_scales=1e-6)


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (33, 32), (45, 70), (96, 64)])
def test_images_of_any_size(height, width):
    maps = make(SMALL, out_indices=ALL).eval()(torch.randn(1, 3, height, width))
    strides = (4, 8, 16, 32)
    assert [y.shape[2:] for y in maps] == [(math.ceil(height / s), math.ceil(width / s)) for s in strides]
    assert all(y.isfinite().all() for y in maps)


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match=r'expected images of at least one cell of the last stage .* got 31 x 64'):
        make(SMALL)(torch.randn(1, 3, 31, 64))


@torch.no_grad()
def test_images_of_a_batch_do_not_mix_but_padding_changes_every_pixel():
    network = make(SMALL).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    (alone,) = network(images[:1])
    torch.testing.assert_close(network(images)[0][:1], alone)
    (padded,) = network(nn.functional.pad(images[:1], (0, 640)))  # the first pixel is 18 cells from the padding
    assert (padded[..., :1, 0] - alone[..., :1, 0]).abs().min() > 1e-3


def test_output_norms():
    maps = make(out_indices=(1, 3)).double()(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    assert [y.shape[1] for y in maps] == [48, 96]
    for y in maps:
        torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(2, dtype=torch.float64))
        torch.testing.assert_close(
            y.var((1, 2, 3), correction=0), torch.ones(2, dtype=torch.float64), rtol=1e-3, atol=0
        )


def test_drop_path_grows_with_depth():
    network = make(SMALL, drop_path_rate=0.2)
    assert [block.drop_path.drop_prob for block in network.layers] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    images = torch.randn(4, 3, 32, 32)
    for block in network.layers:
        block.drop_path.drop_prob = 1 - 1e-9
    (dropped,) = network.train()(images)
    with torch.no_grad():
        for block in network.layers:
            block.layer_scale_1.zero_()
            block.layer_scale_2.zero_()
    assert torch.equal(dropped, network(images)[0])


def test_recomputed_blocks_have_the_same_gradients():
    images = torch.randn(2, 3, 40, 48)
    gradients = []
    for with_cp in (False, True):
        network, calls = make(SMALL, with_cp=with_cp, drop_path_rate=0.5), []
        network.layers[0].channel_mixer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        network(images)[0].square().sum().backward()
        assert len(calls) == 1 + with_cp
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
        gradients[-1].update(network.named_buffers())
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_every_parameter_gets_a_gradient():
    network = make(SMALL, out_indices=ALL).eval()
    sum((y**3).sum() for y in network(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad.abs().max() < 1e-6] == []


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_frozen_stages(frozen_stages):
    network = make(SMALL, frozen_stages=frozen_stages, out_indices=ALL).train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    maps = network(torch.randn(2, 3, 64, 64))
    if frozen_stages < 4:
        sum((y**3).sum() for y in maps).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        kind, stage = name.split('.')[:2]
        stage = int(kind[4:]) if kind.startswith('norm') else int(stage)
        depth = 0 if (kind, stage) == ('downsample_layers', 0) else stage + 1
        assert torch.equal(value, before[name]) == (depth <= frozen_stages), name


@pytest.mark.parametrize('norm_eval', [False, True])
def test_batch_norms_in_training(norm_eval):
    network = make(SMALL, norm_eval=norm_eval).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.randn(4, 3, 32, 64))
    assert len(before) == 4 * 3
    assert all(torch.equal(buffer, before[name]) == norm_eval for name, buffer in network.named_buffers())
    assert network.stages[0][0].training


def test_other_norms_of_the_stem():
    norms = [layer.norm for layer in make(SMALL).downsample_layers]
    assert {(type(norm), norm.eps, norm.momentum) for norm in norms} == {(nn.BatchNorm2d, 1e-5, 0.1)}
    synced = make(SMALL, norm_cfg=dict(type='SyncBN', momentum=0.01)).eval()
    assert all(isinstance(layer.norm, nn.SyncBatchNorm) for layer in synced.downsample_layers)
    assert synced.downsample_layers[0].norm.momentum == 0.01
    images = torch.randn(1, 3, 32, 32)
    plain = make(SMALL).eval()
    assert torch.equal(synced(images)[0], plain(images)[0])
    plain.load_state_dict(synced.state_dict())
    fixed = make(SMALL, norm_cfg=dict(type='BN', requires_grad=False))
    assert not any(parameter.requires_grad for parameter in fixed.downsample_layers[3].norm.parameters())


@pytest.mark.parametrize(
    ('name', 'depth'),
    [
        ('downsample_layers.0.projection.weight', 0),
        ('stages.0.0.layer_scale_1', 1),
        ('downsample_layers.1.norm.bias', 2),
        ('stages.1.0.norm1.weight', 2),
        ('stages.1.1.token_mixer.gc1.fc1.bias', 3),
        ('stages.3.0.channel_mixer.fc2.weight', 5),
        ('norm3.weight', 6),
    ],
)
def test_layer_depth(name, depth):
    network = make(SMALL)
    assert name in dict(network.named_parameters())
    assert network.get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 7)
    assert network.get_layer_depth('head.fc.weight', 'backbone.') == (6, 7)


def test_initial_values():
    """Every parameter has its published distribution after init_weights, whatever it was before."""
    torch.manual_seed(0)
    network = MODELS.build(dict(type='FCViT', arch='tiny', out_indices=ALL))
    for value in network.state_dict().values():
        value.fill_(7)
    network.init_weights()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels // module.groups))
        elif isinstance(module, nn.Linear):
            std = 0.02
        else:
            if isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                assert (module.weight == 1).all(), name
                assert (module.bias == 0).all(), name
            continue
        weight = module.weight
        assert weight.mean().abs() < 5 * std / weight.numel() ** 0.5, name
        assert weight.std().item() == pytest.approx(std, rel=4 / weight.numel() ** 0.5), name
        assert (module.bias == 0).all(), name
    stem = network.downsample_layers[0]
    assert stem.projection.weight.std().item() == pytest.approx(0.0357, rel=0.05)
    assert (stem.norm.running_mean == 0).all()
    assert (stem.norm.running_var == 1).all()
    blocks = network.layers
    assert all((scale == 1e-5).all() for block in blocks for scale in (block.layer_scale_1, block.layer_scale_2))
    contexts = [module for module in network.modules() if isinstance(module, GlobalContext)]
    assert len(contexts) == 2 * 13
    assert all((context.rescale_weight == 1).all() for context in contexts)
    assert all((context.rescale_bias == 0).all() for context in contexts)
    assert not any((value == 7).any() for value in network.state_dict().values())


def test_the_layer_scale_may_be_a_whole_number():
    block = FCViT(SMALL, layer_scale=1).layers[0]
    assert block.layer_scale_1.dtype == block.layer_scale_2.dtype == torch.float32


def test_initial_value_of_the_layer_scale():
    network = FCViT(SMALL, layer_scale=1e-6)
    assert (network.layers[4].layer_scale_2 == 1e-6).all()
    network.layers[4].layer_scale_2.data.zero_()
    network.init_weights()
    assert (network.layers[4].layer_scale_2 == 1e-6).all()


def test_all_mixers_are_modules_that_analyses_find():
    mixers = [module for module in FCViT('nano').modules() if isinstance(module, GlobalContextMixer)]
    assert len(mixers) == 5


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    network = make(SMALL).to(dtype)
    (y,) = network(torch.randn(2, 3, 32, 64, dtype=dtype))
    assert y.dtype == dtype
    y.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_autocast():
    network = make(SMALL).eval()
    images = torch.randn(1, 3, 64, 64)
    (expected,) = network(images)
    with torch.autocast('cpu', torch.bfloat16):
        (y,) = network(images)
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05, check_dtype=False)


def test_export_for_any_size():
    network = make(SMALL, out_indices=ALL).eval()
    rows, columns = torch.export.Dim('rows', min=2, max=16), torch.export.Dim('columns', min=2, max=16)
    shapes = ({2: 32 * rows, 3: 32 * columns},)
    program = torch.export.export(network, (torch.randn(1, 3, 64, 96),), dynamic_shapes=shapes)
    images = torch.randn(1, 3, 128, 64)
    torch.testing.assert_close(program.module()(images), network(images))
