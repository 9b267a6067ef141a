import math

import pytest
import torch
from torch import nn

from mmdefocus.models import DefocusClsHead, DefocusMamba, SimpleFeaturePyramid
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus
from mmdefocus.models.checkpoint.names import backbone_state_dict, is_official, rename_official

GOLDEN_CASES = ['cls_rope', 'cls_norope', 'cls_22kto1k_scaled', 'det_window', 'det_raster']


def official_shapes(width, layers, classes, hidden_head=False, rotary=True):
    """Keys and shapes of an official classification file, written out."""
    inner, state, kernel, rank = 2 * width, 16, 4, 48
    block = {
        'norm.weight': (width,),
        'mixer.A_log': (inner, state),
        'mixer.D': (inner,),
        **({'mixer.freq': (state,)} if rotary else {}),
        'mixer.conv1d.weight': (inner, 1, kernel),
        'mixer.conv1d.bias': (inner,),
        'mixer.in_proj.weight': (2 * inner, width),
        'mixer.x_proj.weight': (rank + 2 * state, inner),
        'mixer.dt_proj.weight': (inner, rank),
        'mixer.dt_proj.bias': (inner,),
        'mixer.out_proj.weight': (width, inner),
    }
    head = {'weight': (classes, width), 'bias': (classes,)}
    if hidden_head:
        head = {
            '0.weight': (3 * width, width),
            '0.bias': (3 * width,),
            '2.weight': (classes, 3 * width),
            '2.bias': (classes,),
        }
    return {
        'cls_token': (1, 1, width),
        'patch_embed.proj.weight': (width, 3, 16, 16),
        'patch_embed.proj.bias': (width,),
        **{f'blocks.{index}.{name}': shape for index in range(layers) for name, shape in block.items()},
        'norm.weight': (width,),
        'norm.bias': (width,),
        **{f'head.{name}': shape for name, shape in head.items()},
        **{f'head2.{name}': shape for name, shape in head.items()},
    }


def official_keys(num_layers):
    return list(official_shapes(4, num_layers, 2))


@pytest.mark.parametrize('case', GOLDEN_CASES)
def test_round_trip_is_exact(golden, case):
    _, official = golden(case)
    back = mmdefocus_to_official(official_to_mmdefocus(official))
    assert list(back) == list(official)
    assert all(back[key] is official[key] for key in official)


def test_classification_names():
    official = {key: key for key in official_keys(1)}
    ours = {value: key for key, value in official_to_mmdefocus(official).items()}
    assert ours['cls_token'] == 'backbone.cls_token'
    assert ours['patch_embed.proj.bias'] == 'backbone.patch_embed.projection.bias'
    assert ours['blocks.0.mixer.dt_proj.bias'] == 'backbone.layers.0.mixer.dt_proj.bias'
    assert ours['norm.weight'] == 'backbone.norm.weight'
    assert ours['head.weight'] == 'head.fc.weight'
    assert ours['head2.bias'] == 'head.aux_fc.bias'


@pytest.mark.parametrize('hidden_head', [False, True])
@pytest.mark.parametrize(
    ('arch', 'width', 'layers', 'parameters'),
    [('small', 384, 24, 25_092_944), ('base', 768, 24, 92_650_832), ('large', 1024, 48, 330_117_840)],
)
def test_our_classifiers_have_exactly_the_official_keys_and_shapes(arch, width, layers, parameters, hidden_head):
    with torch.device('meta'):
        head = DefocusClsHead(1000, width, 3 * width if hidden_head else None, loss=nn.Identity())
        model = nn.ModuleDict({'backbone': DefocusMamba(arch), 'head': head})
    ours = model.state_dict()
    official = {key: tuple(value.shape) for key, value in mmdefocus_to_official(ours).items()}
    expected = official_shapes(width, layers, 1000, hidden_head)
    assert list(official.items()) == list(expected.items())
    assert list(official_to_mmdefocus(official)) == list(ours)
    if hidden_head == (arch == 'large'):  # as published
        assert sum(math.prod(shape) for shape in official.values()) == parameters


def test_our_detectors_have_exactly_the_official_keys(golden, toy_arch):
    _, official = golden('det_window')
    with torch.device('meta'):
        backbone, neck = DefocusMamba(toy_arch | {'num_layers': 3}), SimpleFeaturePyramid(16, 8)
    ours = nn.ModuleDict({'backbone': backbone, 'neck': neck}).state_dict()
    assert list(mmdefocus_to_official(ours)) == list(official)


def test_names_of_dino_do_not_change():
    official = dict.fromkeys(['backbone.cls_token', 'bbox_head.cls_branches.0.weight', 'level_embed'], 0)
    official |= dict.fromkeys(['encoder.layers.0.norms.0.weight', 'dn_query_generator.label_embedding.weight'], 0)
    assert official_to_mmdefocus(official) == official
    assert mmdefocus_to_official(official) == official


def test_a_bare_backbone_is_written_as_classification_by_default():
    ours = {'backbone.layers.0.norm.weight': 0, 'backbone.patch_embed.projection.bias': 1}
    assert mmdefocus_to_official(ours) == {'blocks.0.norm.weight': 0, 'patch_embed.proj.bias': 1}
    detection = {'backbone.blocks.0.norm.weight': 0, 'backbone.patch_embed.projection.bias': 1}
    assert mmdefocus_to_official(ours, kind='detection') == detection
    assert official_to_mmdefocus(detection) == ours


def test_leftovers_are_all_named():
    official = dict.fromkeys(official_keys(1), 0) | {'pos_embed': 0, 'blocks.0.mixer.out_proj.bias': 0}
    message = '2 keys do not belong to the official classification names: pos_embed, blocks.0.mixer.out_proj.bias'
    with pytest.raises(ValueError, match=message):
        official_to_mmdefocus(official)
    with pytest.raises(ValueError, match=r'official detection names: backbone.layer1\.0\.conv1\.weight, fc\.weight'):
        official_to_mmdefocus({'backbone.layer1.0.conv1.weight': 0, 'fc.weight': 0, 'backbone.cls_token': 0})
    with pytest.raises(
        ValueError, match=r'1 keys do not belong to the mmdefocus classification names: head\.fc\.1\.bias'
    ):
        mmdefocus_to_official({'backbone.cls_token': 0, 'head.fc.1.bias': 0})
    with pytest.raises(ValueError, match=r'mmdefocus detection names: roi_head\.weight'):
        mmdefocus_to_official({'backbone.layers.0.mixer.A_log': 0, 'roi_head.weight': 0})


def test_leftovers_are_left_out_on_request():
    official = dict.fromkeys(official_keys(1), 0)
    assert official_to_mmdefocus(official | {'pos_embed': 0}, strict=False) == official_to_mmdefocus(official)


@pytest.mark.parametrize('case', GOLDEN_CASES)
def test_part_of_the_backbone(golden, case):
    """Official and our names, whole model and backbone alone."""
    _, official = golden(case)
    ours = official_to_mmdefocus(official)
    expected = {key.removeprefix('backbone.'): value for key, value in ours.items() if key.startswith('backbone.')}
    alone = {
        key.removeprefix('backbone.'): value for key, value in official.items() if not key.startswith(('head', 'neck.'))
    }
    assert is_official(official)
    assert is_official(alone)
    assert not is_official(ours)
    for state_dict in (official, ours, alone, expected):
        assert backbone_state_dict(state_dict) == expected
        extra = backbone_state_dict(state_dict | {'extra': 0})
        assert extra == (
            expected if any(key.startswith('backbone.') for key in state_dict) else expected | {'extra': 0}
        )
    for state_dict in (official, alone):
        assert rename_official(state_dict | {'extra': 0}) == official_to_mmdefocus(state_dict) | {'extra': 0}
    assert official_to_mmdefocus(alone) == {f'backbone.{key}': value for key, value in expected.items()}


def test_blocks_of_other_models_are_not_official():
    other = {'blocks.0.attn.qkv.weight': 0, 'patch_embed.proj.weight': 0, 'cls_token': 0}
    assert not is_official(other)
    assert backbone_state_dict(other) == rename_official(other) == other


def test_the_wrong_direction_is_an_error():
    with pytest.raises(ValueError, match='expected official names, got names of mmdefocus already'):
        official_to_mmdefocus({'backbone.layers.0.norm.weight': 0})
    with pytest.raises(ValueError, match=r'expected names of mmdefocus \(backbone\.\*\), got official names'):
        mmdefocus_to_official({'backbone.blocks.0.norm.weight': 0})
    with pytest.raises(ValueError, match=r'expected names of mmdefocus \(backbone\.\*\), got official names'):
        mmdefocus_to_official({'blocks.0.norm.weight': 0})


@pytest.mark.parametrize('convert', [official_to_mmdefocus, mmdefocus_to_official])
def test_whole_checkpoints_and_other_objects_are_errors(convert):
    with pytest.raises(ValueError, match="got a whole checkpoint; pass its entry 'model'"):
        convert({'model': {}, 'epoch': 3})
    with pytest.raises(ValueError, match="got a whole checkpoint; pass its entry 'state_dict'"):
        convert({'state_dict': {}, 'meta': {}})
    with pytest.raises(TypeError, match=r'expected a state dict .*, got list'):
        convert([])


def test_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match=r"kind must be one of \['classification', 'detection'\] or None, got 'det'"):
        mmdefocus_to_official({}, kind='det')
