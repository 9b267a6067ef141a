"""Official DAT files: names, loading, conversion and misfits."""

import sys
import types
from collections import OrderedDict

import pytest
import torch
from dat_official import make_classifier, random_official
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from test_dat import PLAIN, SMALL

from mmdefocus.models import DAT
from mmdefocus.models.checkpoint import CheckpointError, mmdefocus_to_official, official_to_mmdefocus
from mmdefocus.models.checkpoint.conversion import convert_official, convert_to_official
from mmdefocus.models.checkpoint.families import family_by_name, find_family, find_official_family
from mmdefocus.models.checkpoint.inspection import expected_model, missing_and_misshapen, report

ALL = (0, 1, 2, 3)


@pytest.fixture
def official_file(tmp_path):
    """Writer of a file as the authors' trainer saves it, with the config as a pickled yacs object."""

    def write(state_dict):
        module = types.ModuleType('yacs.config')
        module.CfgNode = type('CfgNode', (dict,), {'__module__': 'yacs.config'})
        config = module.CfgNode(MODEL=module.CfgNode(TYPE='dat', DAT=module.CfgNode(img_size=224)), AMP=True)
        training = dict(optimizer={'state': {}}, lr_scheduler={'last_epoch': 1}, max_accuracy=83.9, epoch=299)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
            patch.setitem(sys.modules, 'yacs.config', module)
            torch.save({'model': OrderedDict(state_dict), **training, 'config': config}, tmp_path / 'dat.pth')
        return str(tmp_path / 'dat.pth')

    return write


def assert_bit_equal(first, second):
    assert list(first) == list(second)
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        assert torch.equal(first[name].flatten().view(torch.uint8), second[name].flatten().view(torch.uint8)), name


def weights_of(arch, **options):
    """Return our names of a whole model with random values."""
    torch.manual_seed(0)
    return {f'backbone.{name}': value for name, value in DAT(arch, **options).state_dict().items()}


def test_names():
    official = [
        'patch_proj.0.weight',
        'patch_proj.4.norm.bias',
        'down_projs.1.0.weight',
        'down_projs.2.1.norm.weight',
        'stages.2.layer_norms.34.norm.weight',
        'stages.2.layer_norms.35.norm.bias',
        'stages.2.local_perception_units.17.weight',
        'stages.2.attns.16.rpb',
        'stages.2.attns.16.qkv.bias',
        'stages.2.attns.16.proj.weight',
        'stages.2.attns.17.rpe_table',
        'stages.2.attns.17.conv_offset.0.bias',
        'stages.2.attns.17.conv_offset.1.norm.weight',
        'stages.2.attns.17.conv_offset.3.weight',
        'stages.2.attns.17.proj_v.weight',
        'stages.2.attns.17.proj_out.bias',
        'stages.2.mlps.17.linear1.0.weight',
        'stages.2.mlps.17.dwc.bias',
        'stages.2.mlps.17.linear2.0.bias',
        'stages.3.attns.0.proj_qkv.weight',
        'stages.3.attns.0.relative_position_bias_table',
        'stages.3.attns.0.relative_position_index',
        'stages.3.attns.0.attn_mask',
        'stages.3.mlps.0.chunk.linear1.weight',
        'cls_norm.norm.weight',
        'cls_head.bias',
    ]
    ours = [
        'backbone.downsample_layers.0.0.weight',
        'backbone.downsample_layers.0.4.bias',
        'backbone.downsample_layers.2.0.weight',
        'backbone.downsample_layers.3.1.weight',
        'backbone.stages.2.17.norm1.weight',
        'backbone.stages.2.17.norm2.bias',
        'backbone.stages.2.17.lpu.weight',
        'backbone.stages.2.16.attn.rpb',
        'backbone.stages.2.16.attn.qkv.bias',
        'backbone.stages.2.16.attn.proj.weight',
        'backbone.stages.2.17.attn.rpe_table.weight',
        'backbone.stages.2.17.attn.conv_offset.0.bias',
        'backbone.stages.2.17.attn.conv_offset.1.weight',
        'backbone.stages.2.17.attn.conv_offset.3.weight',
        'backbone.stages.2.17.attn.proj_v.weight',
        'backbone.stages.2.17.attn.proj_out.bias',
        'backbone.stages.2.17.ffn.conv1.weight',
        'backbone.stages.2.17.ffn.dwconv.bias',
        'backbone.stages.2.17.ffn.conv2.bias',
        'backbone.stages.3.0.attn.proj_qkv.weight',
        'backbone.stages.3.0.attn.relative_position_bias_table',
        'backbone.stages.3.0.attn.relative_position_index',
        'backbone.stages.3.0.attn.attn_mask',
        'backbone.stages.3.0.ffn.linear1.weight',
        'backbone.norm3.weight',
        'head.fc.bias',
    ]
    values = dict(zip(official, range(len(official)), strict=True))
    converted = official_to_mmdefocus(values)
    assert list(converted.items()) == list(zip(ours, range(len(ours)), strict=True))
    assert list(mmdefocus_to_official(converted).items()) == list(values.items())
    assert (find_official_family(official).name, find_family(ours).name) == ('dat', 'dat')
    assert (find_official_family(ours), find_family(official)) == (None, None)


def test_unknown_names_are_refused():
    official = dict.fromkeys(('stages.0.layer_norms.0.norm.weight', 'stages.0.attns.0.rpe_bias', 'patch_proj.x'), 0)
    with pytest.raises(
        ValueError, match=r'2 keys do not belong .* names: stages\.0\.attns\.0\.rpe_bias, patch_proj\.x'
    ):
        official_to_mmdefocus(official)


def test_detectors():
    backbone = weights_of(SMALL, out_indices=ALL)
    heads = dict.fromkeys(('neck.fpn_convs.0.conv.weight', 'rpn_head.rpn_cls.bias', 'roi_head.bbox_head.x'), 0)
    heads |= dict.fromkeys(('bbox_head.retina_cls.weight', 'encoder.layers.0.ffn.x', 'level_embed'), 0)
    official = mmdefocus_to_official({**backbone, **heads})
    assert heads.keys() < official.keys()
    norms = [name for name in official if name.startswith('backbone.norms.')]
    assert norms == [f'backbone.norms.{stage}.norm.{leaf}' for stage in ALL for leaf in ('weight', 'bias')]
    assert official_to_mmdefocus(official) == {**backbone, **heads}
    # The backbone of a detector without the prefix
    bare = mmdefocus_to_official(backbone)
    assert [f'backbone.{name}' for name in bare] == [name for name in official if name not in heads]
    assert family_by_name('dat').official_kind(bare) == 'detection'
    assert_bit_equal(official_to_mmdefocus(bare), backbone)
    network = DAT(SMALL, out_indices=ALL)
    network.load_state_dict(official)
    assert_bit_equal(network.state_dict(), {name.removeprefix('backbone.'): value for name, value in backbone.items()})


@pytest.mark.parametrize('arch', ['nano', 'tiny', 'plus-tiny'])
def test_a_round_trip_is_bit_equal(arch):
    official = random_official(arch)
    content = convert_official({'model': official})
    assert_bit_equal(convert_to_official(content)['model'], official)
    model = expected_model(content['state_dict'])
    assert missing_and_misshapen(content['state_dict'], model) == []
    assert model['backbone'].embed_dims == DAT.arch_zoo[arch]['embed_dims']
    assert f"arch='{arch}', img_size=224" in report(content['state_dict'], {k: k for k in content['state_dict']}, 'to')


def test_a_file_loads_into_a_classifier(official_file):
    official = random_official('nano', num_classes=7)
    model = make_classifier('nano', num_classes=7)
    load_checkpoint(model, official_file(official), strict=True)
    assert_bit_equal(mmdefocus_to_official(model.state_dict()), official)


def test_a_classifier_file_starts_a_detector(official_file):
    official = random_official('nano', num_classes=7)
    init_cfg = dict(type='Pretrained', checkpoint=official_file(official))
    network = MODELS.build(dict(type='DAT', arch='nano', out_indices=ALL, init_cfg=init_cfg))
    network.init_weights()
    loaded = network.state_dict()
    own = official_to_mmdefocus(official)
    for name, value in loaded.items():
        if name.startswith(('norm0', 'norm1', 'norm2')):
            assert (value == (1 if name.endswith('weight') else 0)).all()
        else:
            assert torch.equal(value, own[f'backbone.{name}']), name


def test_weights_load_for_images_of_another_size(official_file):
    """DAT-B++ at 384 pixels has the tables of 224 pixels."""
    path = official_file(random_official('nano'))
    network = DAT('nano', init_cfg=dict(type='Pretrained', checkpoint=path))
    network.init_weights()
    table = network.stages[0][1].attn.rpe_table.weight
    assert table.shape == (2, 111, 111)
    assert torch.equal(table, random_official('nano')['stages.0.attns.1.rpe_table'])
    for side in (64, 384):
        assert network(torch.randn(1, 3, side, side))[0].shape[2:] == (side // 32, side // 32)
    larger = DAT('nano', img_size=384, init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(
        CheckpointError,
        match=r"expected weights of arch='nano', img_size=384, .*, got weights of arch='nano', img_size=224, window",
    ):
        larger.init_weights()


@pytest.mark.parametrize(
    ('own', 'theirs'),
    [('small', 'tiny'), ('v1-tiny', 'small'), ('tiny', 'plus-tiny'), ('plus-tiny', 'tiny')],
)
def test_weights_of_another_variant(own, theirs):
    with torch.device('meta'):
        network, weights = DAT(own), make_classifier(theirs).state_dict()
    with pytest.raises(
        RuntimeError, match=rf"expected weights of arch='{own}', .*, got weights of arch='{theirs}', img"
    ):
        network.load_state_dict(mmdefocus_to_official(weights))


def test_weights_of_another_depth():
    shallow = DAT(dict(SMALL, blocks=('ND', 'D', 'NN', 'D')))
    with pytest.raises(
        RuntimeError, match=r"expected weights of another arch, .* 'DD'\]\), got weights of another arch"
    ):
        DAT(SMALL).load_state_dict(shallow.state_dict(), strict=False)


@pytest.mark.parametrize(
    ('changes', 'options'),
    [
        ({}, {}),
        (PLAIN, dict(in_channels=1, img_size=64, window_size=5)),
        (dict(PLAIN, blocks=('LS', 'D', 'LD', 'S'), num_groups=(1, 4, 3, 1)), dict(window_size=3, img_size=96)),
        (dict(local_perception=False), dict(out_indices=(0, 2))),
        (dict(conv_ffn=False), dict(out_indices=ALL)),
        (dict(offset_kernels=(5, 5, 3, 5), num_heads=(4, 2, 6, 8)), {}),
    ],
)
def test_the_sizes_of_any_network_are_found(changes, options):
    state_dict = weights_of({**SMALL, **changes}, **options)
    family = family_by_name('dat')
    config = family.model_config(state_dict)['backbone']
    built = MODELS.build(config)
    assert {f'backbone.{name}': value.shape for name, value in built.state_dict().items()} == {
        name: value.shape for name, value in state_dict.items()
    }
    assert config['arch']['blocks'] == (changes.get('blocks') or SMALL['blocks'])
    assert config['window_size'] == options.get('window_size', 7)
    assert family.describe(state_dict) == [f'network    DAT, {built.describe_size(built.state_dict())}']
    assert 'another arch' in built.describe_size(built.state_dict())


def test_the_sizes_of_the_published_networks_are_found():
    family = family_by_name('dat')
    for name, arch in DAT.arch_zoo.items():
        with torch.device('meta'):
            state_dict = {f'backbone.{key}': value for key, value in DAT(name).state_dict().items()}
        assert family.model_config(state_dict)['backbone']['arch'] == arch
        (line,) = family.describe(state_dict)
        assert line.startswith(f'network    DAT, arch={name!r}, img_size=224, window_size=7 (embed_dims=')


def test_sizes_that_tensors_do_not_tell():
    state_dict = {name: value for name, value in weights_of(SMALL).items() if '.attn.rpb' not in name}
    with pytest.raises(ValueError, match=r'lacks tensors that give the width and the blocks of the stages \[0, 2\]'):
        family_by_name('dat').model_config(state_dict)
