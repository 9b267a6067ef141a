"""The DAT backbone: sizes, options and initial values."""

import copy
import math

import pytest
import torch
from dat_official import make_classifier
from torch import nn

from mmdefocus.models import DAT
from mmdefocus.models.map_mixers import DeformableAttentionMixer, NeighbourhoodAttentionMixer

ALL = (0, 1, 2, 3)
SMALL = dict(
    embed_dims=(8, 16, 24, 32),
    blocks=('ND', 'D', 'NN', 'DD'),
    num_heads=(2, 4, 3, 4),
    num_groups=(1, 2, 1, 2),
    offset_kernels=(9, 7, 5, 3),
    offset_strides=(8, 4, 2, 1),
    overlap_patches=True,
    local_perception=True,
    conv_ffn=True,
    offset_range=-1.0,
    reference_points='Hk - 1',
)
PLAIN = dict(SMALL, overlap_patches=False, local_perception=False, conv_ffn=False)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def make(arch=SMALL, **kwargs):
    """Return a network with the same values each time."""
    torch.manual_seed(0)
    return DAT(arch, **kwargs)


@pytest.mark.parametrize(
    ('arch', 'parameters', 'stem', 'stages', 'downsampling'),
    [
        ('tiny', 23_962_876, 19_584, [136_852, 851_152, 14_528_016, 6_363_168], 1_550_080),
        ('small', 53_127_366, 43_200, [279_006, 1_866_552, 32_417_496, 14_264_240], 3_486_336),
        ('base', 93_690_640, 76_032, [464_808, 3_268_256, 57_350_304, 25_307_456], 6_196_736),
    ],
)
def test_published_sizes(arch, parameters, stem, stages, downsampling):
    with torch.device('meta'):
        classifier = make_classifier(arch)
    backbone = classifier.backbone
    assert count(classifier) == parameters
    assert count(backbone.downsample_layers[0]) == stem
    assert [count(stage) for stage in backbone.stages] == stages
    assert sum(count(layer) for layer in backbone.downsample_layers[1:]) == downsampling
    assert count(backbone.norm3) + count(classifier.head) == 1002 * backbone.embed_dims[3] + 1000
    assert len(classifier.state_dict()) == 589
    assert list(classifier.buffers()) == []
    tables = [stage[-1].attn.rpe_table.weight.shape for stage in backbone.stages]
    assert tables == [
        (heads, side, side) for heads, side in zip(DAT.arch_zoo[arch]['num_heads'], (111, 55, 27, 13), strict=True)
    ]


def test_published_size_of_dat_plus():
    with torch.device('meta'):
        assert count(make_classifier('plus-tiny')) == 22_772_796


def test_an_arch_of_ones_own():
    network = make(in_channels=1, out_indices=ALL)
    kinds = {'N': NeighbourhoodAttentionMixer, 'D': DeformableAttentionMixer}
    for blocks, letters in zip(network.stages, SMALL['blocks'], strict=True):
        assert [type(block.attn) for block in blocks] == [kinds[letter] for letter in letters]
    assert [y.shape for y in network(torch.randn(1, 1, 64, 64))] == [
        (1, 8, 16, 16),
        (1, 16, 8, 8),
        (1, 24, 4, 4),
        (1, 32, 2, 2),
    ]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(blocks=('ND', 'D', 'NX', 'DD')), r"must consist of the letters N, D, L and S, got 'NX'"),
        (dict(blocks=('ND', '', 'N', 'DD')), r"must consist of the letters N, D, L and S, got ''"),
        (dict(reference_points='W'), r"arch\['reference_points'\] must be one of \['Hk - 1', 'Hk'\], got 'W'"),
        (dict(num_heads=(3, 4, 3, 4)), r'channels must be a multiple of num_heads \(3\), got 8'),
        (dict(offset_strides=(8, 4, 2, 0)), r"arch\['offset_strides'\] must be a list of 4 values"),
        (dict(depths=(1, 1, 1, 1)), r"unknown \['depths'\]"),
    ],
)
def test_wrong_archs(changes, message):
    with pytest.raises(ValueError, match=message):
        DAT({**SMALL, **changes})


@pytest.mark.parametrize('img_size', [0, -32, 100, 224.0, (224, 224)])
def test_wrong_nominal_sizes(img_size):
    with pytest.raises(ValueError, match=r'img_size must be a positive multiple of 32, got'):
        DAT(SMALL, img_size=img_size)


@pytest.mark.parametrize('window_size', [0, 7.0, '7', True, (7, 7)])
def test_wrong_windows(window_size):
    with pytest.raises(ValueError, match=r'window_size must be a positive number of pixels, got'):
        DAT(SMALL, window_size=window_size)


def test_unknown_arguments():
    with pytest.raises(TypeError, match=r"DAT has no argument 'windows_size' \(did you mean 'window_size'\?\)"):
        DAT(SMALL, windows_size=7)
    with pytest.raises(ValueError, match=r"arch must be one of \['nano', 'tiny', .* got 'large'"):
        DAT('large')


@pytest.mark.parametrize('arch', [SMALL, PLAIN], ids=['overlapping', 'plain'])
@pytest.mark.parametrize(('height', 'width'), [(32, 32), (33, 32), (45, 70), (96, 64)])
def test_images_of_any_size(arch, height, width):
    network = make(arch, out_indices=ALL)
    maps = network(torch.randn(1, 3, height, width))
    whole = math.ceil if arch['overlap_patches'] else math.floor
    assert [y.shape[2:] for y in maps] == [(whole(height / s), whole(width / s)) for s in (4, 8, 16, 32)]
    sum((y**3).sum() for y in maps).backward()
    assert all(y.isfinite().all() for y in maps)
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match=r'expected images of at least one cell of the last stage .* got 31 x 64'):
        make()(torch.randn(1, 3, 31, 64))


def test_the_nominal_size_gives_the_tables_and_nothing_else():
    at_64, at_96 = make(img_size=64, window_size=5), make(img_size=96, window_size=5)
    sides = [
        [layer.attn.rpe_table.weight.shape[-1] for layer in stages] for stages in (at_64.stages[3], at_96.stages[3])
    ]
    assert sides == [[3, 3], [5, 5]]
    assert at_64.stages[0][1].attn.rpe_table.weight.shape == (2, 31, 31)
    assert at_64.stages[2][0].attn.rpb.shape == (3, 9, 9)
    same = {name for name, value in at_64.state_dict().items() if value.shape == at_96.state_dict()[name].shape}
    assert set(at_64.state_dict()) - same == {
        f'stages.{block}.attn.rpe_table.weight' for block in ('0.1', '1.0', '3.0', '3.1')
    }


def test_drop_path_grows_with_depth_and_drops_both_branches():
    network = make(drop_path_rate=0.3)
    assert [block.drop_path.drop_prob for block in network.layers] == pytest.approx([0.05 * i for i in range(7)])
    block, x = network.layers[0].train(), torch.randn(2, 8, 9, 9)
    block.drop_path.drop_prob = 1 - 1e-9
    assert torch.equal(block(x), x + block.lpu(x))


def test_recomputed_blocks_have_the_same_gradients():
    images = torch.randn(2, 3, 40, 48)
    gradients = []
    for with_cp in (False, True):
        network, calls = make(with_cp=with_cp, drop_path_rate=0.5), []
        network.layers[0].norm1.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        network(images)[0].square().sum().backward()
        assert len(calls) == 1 + with_cp
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_every_parameter_gets_a_gradient():
    network = make(out_indices=ALL)
    sum((y**3).sum() for y in network(torch.randn(2, 3, 96, 96))).backward()
    # The same bias of all keys of a query does not change the softmax.
    zero = [name for name, parameter in network.named_parameters() if parameter.grad.abs().max() < 1e-7]
    assert [name for name in zero if not name.endswith('proj_k.bias')] == []


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_frozen_stages(frozen_stages):
    network = make(frozen_stages=frozen_stages, out_indices=ALL).train()
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    maps = network(torch.randn(2, 3, 64, 64))
    if frozen_stages < 4:
        sum((y**3).sum() for y in maps).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        kind, stage = name.split('.')[:2]
        stage = int(kind[4:]) if kind.startswith('norm') else int(stage)
        depth = 0 if (kind, stage) == ('downsample_layers', 0) else stage + 1
        assert torch.equal(value, before[name]) == (depth <= frozen_stages), name


@pytest.mark.parametrize(
    ('name', 'depth'),
    [
        ('downsample_layers.0.3.weight', 0),
        ('stages.0.1.attn.rpe_table.weight', 2),
        ('downsample_layers.1.1.bias', 3),
        ('stages.1.0.norm1.weight', 3),
        ('stages.3.1.ffn.dwconv.weight', 7),
        ('norm3.weight', 8),
    ],
)
def test_layer_depth(name, depth):
    network = make()
    assert name in dict(network.named_parameters())
    assert network.get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 9)
    assert network.get_layer_depth('head.fc.weight', 'backbone.') == (8, 9)


@pytest.mark.parametrize('arch', ['nano', 'plus-tiny'])
def test_initial_values(arch):
    """Every parameter has the distribution of the original after init_weights, whatever it was before."""
    torch.manual_seed(0)
    network = DAT(arch, out_indices=ALL)
    for value in network.state_dict().values():
        value.fill_(7)
    network.init_weights()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5  # kaiming uniform with a = sqrt(5)
            assert 0.7 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or 0 < module.bias.abs().max() <= bound, name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name
        elif isinstance(module, DeformableAttentionMixer):
            assert module.rpe_table.weight.std().item() == pytest.approx(0.01, rel=0.1), name
        elif isinstance(module, NeighbourhoodAttentionMixer):
            assert module.rpb.std().item() == pytest.approx(0.02, rel=0.2), name
    assert not any((value == 7).any() for value in network.state_dict().values())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    network = make().to(dtype)
    (y,) = network(torch.randn(2, 3, 64, 96, dtype=dtype))
    assert y.dtype == dtype
    y.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@torch.no_grad()
def test_autocast():
    network = make().eval()
    images = torch.randn(1, 3, 64, 64)
    (expected,) = network(images)
    with torch.autocast('cpu', torch.bfloat16):
        (y,) = network(images)
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.1, check_dtype=False)


def test_export():
    network, images = make().eval(), torch.randn(1, 3, 64, 96)
    program = torch.export.export(network, (images,))
    torch.testing.assert_close(program.module()(images), network(images))
