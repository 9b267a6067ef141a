import pytest
import torch
from torch import nn

from mmdefocus.models import DefocusMamba, SimpleFeaturePyramid
from mmdefocus.models.checkpoint import mmdefocus_to_official, official_to_mmdefocus

GOLDEN_CASES = ['cls_rope', 'cls_norope', 'det_window', 'det_raster']


def official_keys(num_layers, rotary=True, hidden_head=False):
    """The keys of an official classification file, written out."""
    block = ['norm.weight', 'mixer.A_log', 'mixer.D', *(['mixer.freq'] if rotary else []), 'mixer.conv1d.weight']
    block += ['mixer.conv1d.bias', 'mixer.in_proj.weight', 'mixer.x_proj.weight', 'mixer.dt_proj.weight']
    block += ['mixer.dt_proj.bias', 'mixer.out_proj.weight']
    head = [f'{layer}{leaf}' for layer in (('0.', '2.') if hidden_head else ('',)) for leaf in ('weight', 'bias')]
    return [
        'cls_token',
        'patch_embed.proj.weight',
        'patch_embed.proj.bias',
        *(f'blocks.{index}.{name}' for index in range(num_layers) for name in block),
        'norm.weight',
        'norm.bias',
        *(f'head.{name}' for name in head),
        *(f'head2.{name}' for name in head),
    ]


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


@pytest.mark.parametrize(('arch', 'layers', 'hidden'), [('small', 24, False), ('base', 24, False), ('large', 48, True)])
def test_our_classifiers_have_exactly_the_official_keys(arch, layers, hidden):
    def head():
        return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)) if hidden else nn.Linear(2, 3)

    with torch.device('meta'):
        heads = nn.ModuleDict({'fc': head(), 'aux_fc': head()})
        model = nn.ModuleDict({'backbone': DefocusMamba(arch), 'head': heads})
    official = mmdefocus_to_official(model.state_dict())
    assert list(official) == official_keys(layers, hidden_head=hidden)
    assert official['blocks.3.mixer.conv1d.weight'].shape == (model['backbone'].layers[3].mixer.D.shape[0], 1, 4)
    assert list(official_to_mmdefocus(official)) == list(model.state_dict())


def test_our_detectors_have_exactly_the_official_keys(golden, toy_arch):
    _, official = golden('det_window')
    with torch.device('meta'):
        backbone, neck = DefocusMamba(toy_arch | {'num_layers': 3}), SimpleFeaturePyramid(16, 8)
    ours = nn.ModuleDict({'backbone': backbone, 'neck': neck}).state_dict()
    assert list(mmdefocus_to_official(ours)) == list(official)


def test_names_of_dino_stay():
    official = dict.fromkeys(['backbone.cls_token', 'bbox_head.cls_branches.0.weight', 'level_embed'], 0)
    official |= dict.fromkeys(['encoder.layers.0.norms.0.weight', 'dn_query_generator.label_embedding.weight'], 0)
    assert official_to_mmdefocus(official) == official
    assert mmdefocus_to_official(official) == official


def test_a_bare_backbone_is_written_as_classification_unless_told():
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
        mmdefocus_to_official({'backbone.cls_token': 0, 'roi_head.weight': 0})


def test_names_that_are_already_right_are_refused():
    with pytest.raises(ValueError, match='already in the naming of mmdefocus'):
        official_to_mmdefocus({'backbone.layers.0.norm.weight': 0})
    with pytest.raises(ValueError, match='got official keys'):
        mmdefocus_to_official({'backbone.blocks.0.norm.weight': 0})
    with pytest.raises(ValueError, match='got official keys'):
        mmdefocus_to_official({'blocks.0.norm.weight': 0})


@pytest.mark.parametrize('convert', [official_to_mmdefocus, mmdefocus_to_official])
def test_whole_checkpoints_and_other_objects_are_refused(convert):
    with pytest.raises(ValueError, match="got a whole checkpoint; pass its entry 'model'"):
        convert({'model': {}, 'epoch': 3})
    with pytest.raises(ValueError, match="got a whole checkpoint; pass its entry 'state_dict'"):
        convert({'state_dict': {}, 'meta': {}})
    with pytest.raises(TypeError, match=r'expected a state dict .*, got list'):
        convert([])


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"kind must be one of \['classification', 'detection'\] or None, got 'det'"):
        mmdefocus_to_official({}, kind='det')
