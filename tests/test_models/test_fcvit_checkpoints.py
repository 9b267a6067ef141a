"""Official FCViT files: names, conversion both ways, and loading into classifiers and detectors."""

import argparse

import pytest
import torch
from fcvit_official import make_classifier, official_state_dict, random_official
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from mmdefocus.models import FCViT
from mmdefocus.models.checkpoint import CheckpointError, mmdefocus_to_official, official_to_mmdefocus
from mmdefocus.models.checkpoint.conversion import convert_official, convert_to_official
from mmdefocus.models.checkpoint.families import family_by_name, find_family, find_official_family
from mmdefocus.models.checkpoint.families.name_map import sources_by_name
from mmdefocus.models.checkpoint.inspection import expected_model, missing_and_misshapen, report

ALL = (0, 1, 2, 3)


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope='module')
def official():
    """Tensors of an official classifier."""
    return random_official('nano')


def as_detector(official):
    """Return official tensors as they are in a detection file: a norm per stage, and other parts."""
    trunk = {f'backbone.{key}': value for key, value in official.items() if not key.startswith(('norm.', 'head.'))}
    norms = {
        f'backbone.norm{2 * stage}.{leaf}': torch.randn(width)
        for stage, width in enumerate((32, 48, 64, 96))
        for leaf in ('weight', 'bias')
    }
    others = ('neck.lateral_convs.0.conv.weight', 'rpn_head.rpn_cls.bias', 'roi_head.bbox_head.fc_cls.weight')
    return trunk | norms | {key: torch.randn(2, 2) for key in others}


def write(path, official, **others):
    """Write a file as timm's trainer does."""
    average = {key: value / 2 if value.is_floating_point() else value for key, value in official.items()}
    args = argparse.Namespace(model='fcvit_nano', lr=1e-3, mean=None, aa='rand-m9')
    content = dict(state_dict=official, state_dict_ema=average, epoch=3, arch='fcvit_nano', args=args, metric=74.9)
    torch.save(content | others, path)
    return dict(type='Pretrained', checkpoint=str(path))


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def published_shapes(dims, depths, ratios):
    """Write the official names of a classifier with their shapes by the table of the publication."""
    shapes = {}

    def layer(name, *weight):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = weight, weight[:1]

    for stage, name in enumerate(['patch_embed', 'network.1', 'network.3', 'network.5']):
        width = dims[stage]
        layer(f'{name}.proj', width, *((dims[stage - 1], 3, 3) if stage else (3, 7, 7)))
        layer(f'{name}.norm', width)
        shapes |= {f'{name}.norm.running_mean': (width,), f'{name}.norm.running_var': (width,)}
        shapes[f'{name}.norm.num_batches_tracked'] = ()
        hidden, narrow = ratios[stage] * width, max(width // 8, 16)
        for block in (f'network.{2 * stage}.{b}' for b in range(depths[stage])):
            for half in (1, 2):
                mixer = f'{block}.token_mixer'
                shapes[f'{block}.layer_scale_{half}'] = (width,)
                layer(f'{block}.norm{half}', width)
                shapes |= {f'{mixer}.gc{half}.rescale_{leaf}': (8,) for leaf in ('weight', 'bias')}
                layer(f'{mixer}.gc{half}.fc1', width // 4, width)
                layer(f'{mixer}.gc{half}.fc2', width, width // 8)
                layer(f'{mixer}.dw{half}', width, 1, 11, 11)
                layer(f'{mixer}.fc{half}.0', narrow, width, 1, 1)
                layer(f'{mixer}.fc{half}.2', width, narrow, 1, 1)
            layer(f'{block}.channel_mixer.fc1', hidden, width, 1, 1)
            layer(f'{block}.channel_mixer.dwconv', hidden, 1, 3, 3)
            layer(f'{block}.channel_mixer.fc2', width, hidden, 1, 1)
    layer('norm', dims[3])
    layer('head', 1000, dims[3])
    return shapes


@pytest.mark.parametrize('arch', ['tiny', 'b12', 'b24', 'b48'])
def test_official_names_and_shapes(arch):
    sizes = FCViT.arch_zoo[arch]
    expected = published_shapes(sizes['embed_dims'], sizes['depths'], sizes['mixer_ratios'])
    with torch.device('meta'):
        found = official_state_dict(arch)
    assert {key: tuple(value.shape) for key, value in found.items()} == expected
    ours = official_to_mmdefocus({key: key for key in expected})
    assert len(set(ours.values())) == len(expected)
    assert mmdefocus_to_official(ours) == {key: key for key in expected}


def test_values_are_the_same_both_ways(official):
    ours = official_to_mmdefocus(official)
    assert torch.equal(
        ours['backbone.stages.2.1.token_mixer.dw2.weight'], official['network.4.1.token_mixer.dw2.weight']
    )
    assert torch.equal(ours['backbone.downsample_layers.3.norm.bias'], official['network.5.norm.bias'])
    assert torch.equal(ours['backbone.norm3.weight'], official['norm.weight'])
    assert_same(mmdefocus_to_official(ours), official)


def test_names_of_detectors(official):
    detector = as_detector(official)
    ours = official_to_mmdefocus(detector)
    assert torch.equal(ours['backbone.norm1.weight'], detector['backbone.norm2.weight'])
    assert torch.equal(ours['backbone.norm3.weight'], detector['backbone.norm6.weight'])
    assert_same(mmdefocus_to_official(ours), detector)
    prefix = 'backbone.'
    bare = {key.removeprefix(prefix): value for key, value in detector.items() if key.startswith(prefix)}
    backbone = official_to_mmdefocus(bare)
    assert_same(backbone, {key: value for key, value in ours.items() if key.startswith(prefix)})
    assert_same(mmdefocus_to_official(backbone), bare)
    with pytest.raises(ValueError, match=r"a detection file has no classification heads; convert it with to='det'"):
        convert_official({'state_dict': bare}, to='cls')


def test_recognition(official):
    family = family_by_name('fcvit')
    assert find_official_family(official) is find_official_family(as_detector(official)) is family
    assert find_family(official_to_mmdefocus(official)) is family
    assert find_official_family(official_to_mmdefocus(official)) is find_family(official) is None
    assert find_official_family({'network.0.0.token_mixer.pool.weight': 0}) is None
    with pytest.raises(ValueError, match=r'2 keys do not belong to the official classification names: network\.7\.0\.'):
        official_to_mmdefocus(official | {'network.7.0.norm1.bias': 0, 'network.0.0.attn.weight': 0})


def test_a_classifier_loads_official_names(official):
    model = make_classifier('nano')
    model.load_state_dict(official)
    assert_same(mmdefocus_to_official(model.state_dict()), official)


def test_a_file_of_timms_trainer_into_a_classifier(official, tmp_path, log):
    backbone = FCViT('nano', init_cfg=write(tmp_path / 'fcvit.pth.tar', official))
    backbone.init_weights()
    expected = {key: value for key, value in official.items() if not key.startswith('head.')}
    state_dict = {f'backbone.{key}': value for key, value in backbone.state_dict().items()}
    assert_same(mmdefocus_to_official(state_dict), expected)
    assert 'fcvit.pth.tar is an official FCViT checkpoint; converted to the names of mmdefocus' in log.text
    assert "it also has 'state_dict_ema'" in log.text
    assert 'start from initial values' not in log.text


def test_a_classifier_becomes_the_backbone_of_a_detector(official, tmp_path, log):
    init_cfg = write(tmp_path / 'fcvit.pth.tar', official)
    backbone = MODELS.build(dict(type='FCViT', arch='nano', out_indices=ALL, init_cfg=init_cfg))
    backbone.init_weights()
    assert torch.equal(backbone.norm3.bias, official['norm.bias'])
    assert torch.equal(backbone.stages[1][0].layer_scale_2, official['network.2.0.layer_scale_2'])
    assert all((norm.weight == 1).all() for norm in (backbone.norm0, backbone.norm1, backbone.norm2))
    warnings = [record.message for record in log.records if record.levelname == 'WARNING']
    assert warnings == [
        'norm0.bias, norm0.weight, norm1.bias, norm1.weight, norm2.bias, norm2.weight start from initial values: the '
        'checkpoint lacks them'
    ]


@pytest.mark.parametrize('ours', [False, True])
def test_a_detector_becomes_the_backbone_of_a_classifier(official, tmp_path, log, ours):
    detector = as_detector(official)
    torch.save({'meta': {}, 'state_dict': official_to_mmdefocus(detector) if ours else detector}, tmp_path / 'det.pth')
    backbone = FCViT('nano', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'det.pth')))
    backbone.init_weights()
    assert torch.equal(backbone.norm3.weight, detector['backbone.norm6.weight'])
    assert torch.equal(backbone.stages[3][0].norm1.bias, detector['backbone.network.6.0.norm1.bias'])
    assert 'which out_indices=(3,) leaves out' in log.text


def test_incomplete_and_surplus_tensors(official, tmp_path):
    del (incomplete := dict(official))['network.2.0.token_mixer.dw1.weight']
    backbone = FCViT('nano', init_cfg=write(tmp_path / 'incomplete.pth.tar', incomplete))
    with pytest.raises(CheckpointError, match=r'1 missing \(stages\.1\.0\.token_mixer\.dw1\.weight\)'):
        backbone.init_weights()
    backbone = FCViT(
        'nano', init_cfg=write(tmp_path / 'gate.pth.tar', official | {'network.0.0.gate.bias': torch.ones(8)})
    )
    with pytest.raises(ValueError, match=r'1 keys do not belong to the official .* names: network\.0\.0\.gate\.bias'):
        backbone.init_weights()


@pytest.mark.parametrize(
    ('arch', 'other', 'sizes'),
    [
        ('b24', 'b12', r'\(embed_dims=\[64, 128, 320, 512\], blocks=\[2, 2, 6, 2\]\)'),
        ('b12', 'b24', r'\(embed_dims=\[64, 128, 320, 512\], blocks=\[4, 4, 12, 4\]\)'),
        ('b12', 'tiny', r'\(embed_dims=\[32, 64, 160, 320\], blocks=\[3, 3, 5, 2\]\) whose .* is \(32, 3, 7, 7\), not'),
    ],
)
def test_weights_of_another_variant(arch, other, sizes):
    with torch.device('meta'):
        backbone, weights = FCViT(arch), official_state_dict(other)
    message = rf"expected weights of arch='{arch}' .*, got weights of arch='{other}' {sizes}.* give FCViT the .* of the"
    with pytest.raises(RuntimeError, match=message):
        backbone.load_state_dict(weights)


def test_a_file_of_another_variant(official, tmp_path):
    deeper = {**FCViT.arch_zoo['nano'], 'depths': (1, 1, 3, 1)}
    backbone = FCViT(deeper, init_cfg=write(tmp_path / 'fcvit.pth.tar', official))
    with pytest.raises(
        CheckpointError, match=r"got weights of arch='nano' \(embed_dims=\[32, 48, 64, 96\], blocks=\[1, 1, 2"
    ):
        backbone.init_weights()


def test_files_are_converted_there_and_back(official):
    average = {key: value / 2 if value.is_floating_point() else value for key, value in official.items()}
    content = {'state_dict': official, 'state_dict_ema': average, 'epoch': 3}
    converted = convert_official(content)
    assert_same(converted['state_dict'], official_to_mmdefocus(official))
    assert_same(convert_to_official(converted)['state_dict'], official)
    assert_same(convert_official(content, 'model_ema')['state_dict'], official_to_mmdefocus(average))
    backbone = convert_official(content, to='det')['state_dict']
    assert {key.split('.')[0] for key in backbone} == {'backbone'}
    detector = as_detector(official)
    converted = convert_official({'meta': {'epoch': 12}, 'state_dict': detector})
    assert_same(convert_to_official(converted)['state_dict'], detector)


def test_the_report_names_the_network_and_what_is_missing(official):
    ours = official_to_mmdefocus(official)
    assert missing_and_misshapen(ours, expected_model(ours)) == []
    names = sources_by_name(family_by_name('fcvit').from_official(official))
    lines = report(ours, names, 'from').splitlines()
    assert lines[0] == "network    FCViT, arch 'nano': embed_dims (32, 48, 64, 96), depths (1, 1, 2, 1)"
    incomplete = {key: value for key, value in ours.items() if key != 'backbone.stages.2.1.token_mixer.fc1.2.bias'}
    missing = ['backbone.stages.2.1.token_mixer.fc1.2.bias (64,)']
    assert missing_and_misshapen(incomplete, expected_model(incomplete)) == missing
    detector = official_to_mmdefocus(as_detector(official))
    model = expected_model(detector)
    assert model.keys() == {'backbone'}
    assert missing_and_misshapen(detector, model) == []
    del ours['backbone.downsample_layers.2.projection.weight']
    with pytest.raises(
        ValueError, match=r'no backbone\.downsample_layers\.2\.projection\.weight, which every FCViT has'
    ):
        expected_model(ours)


@pytest.mark.parametrize('arch', ['tiny', 'b12', 'b24', 'b48'])
def test_the_arch_is_inferred_from_the_tensors(arch):
    with torch.device('meta'):
        ours = make_classifier(arch, num_classes=10, in_channels=1).state_dict()
        custom = {**FCViT.arch_zoo['nano'], 'num_heads': 4, 'kernel_sizes': (3, 5)}
        own = FCViT(custom, out_indices=(1, 2)).state_dict()
    config = family_by_name('fcvit').model_config(ours)
    assert config['backbone'] == dict(type='FCViT', arch=FCViT.arch_zoo[arch], in_channels=1, out_indices=[3])
    assert (config['head']['num_classes'], config['head']['in_channels']) == (10, FCViT.arch_zoo[arch]['embed_dims'][3])
    own = {f'backbone.{key}': value for key, value in own.items()}
    assert family_by_name('fcvit').model_config(own)['backbone']['arch'] == custom
    assert family_by_name('fcvit').model_config(own)['backbone']['out_indices'] == [1, 2]
    assert family_by_name('fcvit').describe(own)[0].startswith('network    FCViT, custom arch')
