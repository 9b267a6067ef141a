"""Conversion of file contents and its report; tests/test_tools covers the tools."""

import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from mmdefocus import __version__
from mmdefocus.models import DefocusClsHead, DefocusMamba, SimpleFeaturePyramid
from mmdefocus.models.backbones.pretrained import split_pretrained
from mmdefocus.models.checkpoint import CheckpointError, is_official_checkpoint, read_checkpoint
from mmdefocus.models.checkpoint.conversion import convert_official, convert_to_official
from mmdefocus.models.checkpoint.families.defocus_mamba import arch_of
from mmdefocus.models.checkpoint.inspection import expected_model, missing_and_misshapen
from mmdefocus.models.checkpoint.loaders import cached_path
from mmdefocus.models.checkpoint.official import as_mmengine_checkpoint
from mmdefocus.models.checkpoint.publishing import sha256

GOLDEN = Path(__file__).parents[1] / 'golden'


@pytest.fixture
def classifier():
    return read_checkpoint(GOLDEN / 'cls_22kto1k_scaled_official_cls.pth')


@pytest.fixture
def detector():
    return read_checkpoint(GOLDEN / 'det_raster_official_det.pth')


def test_official_files_are_recognised(classifier, detector):
    assert is_official_checkpoint(classifier)
    assert is_official_checkpoint(detector)
    assert not is_official_checkpoint(convert_official(classifier))
    assert not is_official_checkpoint([1])


def test_a_detector_keeps_its_meta(detector):
    converted = convert_official(detector)
    assert list(converted) == ['meta', 'state_dict']
    assert convert_to_official(converted)['meta'] == converted['meta'] == detector['meta'] != {}
    assert convert_to_official({'state_dict': converted['state_dict']})['meta'] == {}
    plain = convert_to_official(converted['state_dict'])
    assert plain['meta'] == {}
    assert plain['state_dict'].keys() == detector['state_dict'].keys()


def test_an_official_detector_keeps_versions_and_progress(detector):
    """mmdet's heads convert the parameters of older versions."""
    detector['state_dict'] = OrderedDict(detector['state_dict'])
    detector['state_dict']._metadata = OrderedDict(bbox_head={'version': 2})
    checkpoint = as_mmengine_checkpoint(detector)
    assert checkpoint.keys() == detector.keys()
    assert checkpoint['state_dict']._metadata == {'bbox_head': {'version': 2}}
    assert 'backbone.norm.weight' in checkpoint['state_dict']
    del detector['state_dict']._metadata
    assert as_mmengine_checkpoint(detector)['state_dict']._metadata == {}


def test_meta_of_a_converted_classifier(classifier):
    meta = convert_official(classifier, 'model_ema')['meta']
    assert meta == {'mmdefocus_version': __version__, 'official_weights': 'model_ema'}


def test_initialisations_are_separated():
    rule = dict(type='Constant', layer='Linear', val=0)
    files = [dict(type='Pretrained', checkpoint='a'), dict(type=PretrainedInit, checkpoint='b')]
    assert split_pretrained([rule, *files]) == ([rule], files)
    assert split_pretrained(files[0]) == ([], files[:1])
    assert split_pretrained(None) == ([], [])


def test_a_classifier_writes_its_image_size_if_the_checkpoint_has_it(classifier):
    converted = convert_official(classifier)
    assert list(convert_to_official(converted)) == ['model', 'config']
    without_metadata = OrderedDict(converted['state_dict'])
    official = convert_to_official({'state_dict': without_metadata})
    assert list(official) == ['model']
    assert official['model'].keys() == classifier['model'].keys()
    without_metadata._metadata = OrderedDict()
    assert list(convert_to_official(without_metadata)) == ['model']


@pytest.mark.parametrize(
    ('content', 'described'),
    [
        ([1], 'got one with a list; name'),
        ({}, 'got one with no keys; name'),
        ({'state_dict': {}}, 'got one with no keys; name'),
        ({'a': 1, 'b': 2, 'c': 3, 'd': 4}, r'got one with the keys a, b, c, \.\.\.; name'),
        ({'model': {'x': 1}, 'optimizer': {}}, r'got one with the keys x, \.\.\.; name'),
        ({'state_dict': {'y': 1}, 'model': {'x': 1}}, r'got one with the keys y, \.\.\.; name'),
        ({'state_dict': [1], 'meta': {}}, r'got one with the keys state_dict, meta, \.\.\.; name'),
    ],
)
@pytest.mark.parametrize('convert', [convert_official, convert_to_official])
def test_foreign_contents_are_described(convert, content, described):
    with pytest.raises(ValueError, match=described):
        convert(content)


def test_heads_of_21k_classes_are_expected(classifier):
    message = r'21k-to-1k expects heads of 21841 classes, got head\.fc\.2\.weight with 10 rows'
    with pytest.raises(ValueError, match=message):
        convert_official(classifier, head='21k-to-1k')


def test_unknown_names_are_an_error_by_default(classifier):
    classifier['model']['foreign.weight'] = torch.zeros(1)
    with pytest.raises(ValueError, match=r'foreign\.weight'):
        convert_official(classifier)
    assert 'foreign.weight' not in convert_official(classifier, strict=False)['state_dict']


def test_a_head_that_was_lost(classifier):
    for name in [name for name, tensor in classifier['model'].items() if len(tensor) == 10]:
        del classifier['model'][name]
    with pytest.raises(ValueError, match=r'got head\.fc\.0\.weight with 192 rows'):
        convert_official(classifier, head='21k-to-1k')


def in_model(backbone, **parts):
    return get_state_dict(nn.ModuleDict({'backbone': backbone, **parts}))


def test_the_arch_is_read_from_the_tensors(toy_arch):
    state_dict = in_model(DefocusMamba(toy_arch | {'group_size': 32}))
    assert arch_of(state_dict) == toy_arch | {'group_size': 32}


def test_the_arch_needs_its_tensors():
    with pytest.raises(ValueError, match=r'the state dict has no backbone.cls_token, backbone.layers.0.mixer.A_log, b'):
        arch_of({})


@pytest.mark.parametrize(
    'changes',
    [{}, {'patch_size': 8}, {'in_channels': 1}, {'rotary': False}],
)
def test_the_network_is_read_from_the_tensors(toy_arch, changes):
    state_dict = in_model(DefocusMamba(toy_arch, img_size=32, **changes))
    model = expected_model(state_dict)
    assert list(model) == ['backbone']
    assert missing_and_misshapen(state_dict, model) == []
    assert {value.device.type for value in model.state_dict().values()} == {'meta'}


@pytest.mark.parametrize('hidden', [None, 5])
def test_the_head_is_read_from_the_tensors(toy_arch, hidden):
    head = DefocusClsHead(7, 16, hidden, loss=nn.Identity())
    state_dict = in_model(DefocusMamba(toy_arch), head=head)
    model = expected_model(state_dict)
    assert list(model) == ['backbone', 'head']
    assert missing_and_misshapen(state_dict, model) == []
    last = 'head.fc.weight' if hidden is None else 'head.fc.2.weight'
    del state_dict[last]
    assert f'{last} (1000, {hidden or 16})' in missing_and_misshapen(state_dict, expected_model(state_dict))


def test_the_neck_is_read_from_the_tensors(toy_arch):
    state_dict = in_model(DefocusMamba(toy_arch), neck=SimpleFeaturePyramid(16, 24, 3))
    model = expected_model(state_dict)
    assert list(model) == ['backbone', 'neck']
    assert missing_and_misshapen(state_dict, model) == []
    for key in [key for key in state_dict if key.startswith('neck.fpn')]:
        del state_dict[key]
    lacking = missing_and_misshapen(state_dict, expected_model(state_dict))
    assert 'neck.fpn_convs.3.conv.weight (256, 256, 3, 3)' in lacking


def test_a_lost_projection_is_missing(toy_arch):
    state_dict = in_model(DefocusMamba(toy_arch))
    del state_dict['backbone.patch_embed.projection.weight']
    assert missing_and_misshapen(state_dict, expected_model(state_dict)) == [
        'backbone.patch_embed.projection.weight (16, 3, 16, 16)'
    ]


def test_downloads_are_kept_by_address(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    path = cached_path('https://example.org/a/base.pth?download=1')
    assert path == tmp_path / 'checkpoints' / path.parent.name / 'base.pth'
    assert len(path.parent.name) == 16
    assert cached_path('https://example.org/b/base.pth') != path
    assert cached_path('https://example.org/').name == 'checkpoint.pth'


def test_hash_of_a_file(tmp_path):
    (tmp_path / 'file').write_bytes(bytes(range(256)) * 9000)
    assert sha256(tmp_path / 'file') == hashlib.sha256(bytes(range(256)) * 9000).hexdigest()


@pytest.mark.parametrize('prefix', ['model.backbone', 'model.backbone.'])
@pytest.mark.parametrize('plain', [False, True])
def test_backbone_of_another_model(build, tmp_path, prefix, plain):
    source = build(rotary=False)
    nn.init.normal_(source.norm.bias)
    state_dict = {f'model.backbone.{name}': tensor for name, tensor in source.state_dict().items()}
    state_dict |= {'model.backbone_2.weight': torch.zeros(1), 'head.weight': torch.zeros(1)}
    torch.save(state_dict if plain else {'state_dict': state_dict}, tmp_path / 'model.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'model.pth'), prefix=prefix)
    target = build(rotary=False, init_cfg=init_cfg)
    target.init_weights()
    assert torch.equal(target.norm.bias, source.norm.bias)


def test_a_prefix_that_the_file_does_not_have(build, tmp_path):
    torch.save({'state_dict': build().state_dict()}, tmp_path / 'model.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'model.pth'), prefix='encoder')
    with pytest.raises(CheckpointError, match='is not a checkpoint of this DefocusMamba'):
        build(init_cfg=init_cfg).init_weights()
