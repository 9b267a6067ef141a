"""Official files, loaded by config and path as users do, against the outputs of the official networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.apis import get_model
from mmpretrain.structures import DataSample
from PIL import Image
from sklearn.datasets import load_sample_images
from test_golden import assert_gradients, assert_parity

from mmdefocus.models.checkpoint import CheckpointError, mmdefocus_to_official, read_checkpoint

GOLDEN = Path(__file__).parents[1] / 'golden'
CONFIGS = Path(__file__).parents[2] / 'configs'
IMPORTS = "custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets'], allow_failed_imports=False)\n"


def arch_of(expected):
    arch = expected['arch']
    return dict(
        embed_dims=arch['embed_dims'],
        num_layers=arch['depth'],
        inner_dims=arch['inner_dims'],
        state_dims=arch['state'],
        conv_kernel=arch['conv'],
        dt_rank=arch['dt_rank'],
        group_size=arch['group'],
    )


def read_expected(case):
    return torch.load(GOLDEN / f'{case}_expected.pt', weights_only=True)


def official_file(case):
    return str(GOLDEN / f'{case}_official_{case[:3]}.pth')


@pytest.fixture
def classifier_config(tmp_path):
    """Writer of a classifier's config without scales, which the checkpoint sets."""

    def write(expected):
        arch = expected['arch']
        backbone = dict(type='DefocusMamba', arch=arch_of(expected), img_size=arch['img'], rotary=arch['rope'])
        hidden = None if arch['head'] == 'IN1k_cls' else 3 * arch['embed_dims']
        head = dict(type='DefocusClsHead', num_classes=arch['num_classes'], in_channels=arch['embed_dims'])
        model = dict(
            type='ImageClassifier', backbone=dict(backbone, out_type='raw'), head=head | dict(hidden_dims=hidden)
        )
        path = tmp_path / 'classifier.py'
        path.write_text(f"{IMPORTS}default_scope = 'mmpretrain'\nmodel = {model!r}\n")
        return path

    return write


def through_load_from(config, file, work_dir):
    cfg = Config.fromfile(config)
    runner = Runner(cfg.model, str(work_dir), load_from=file, default_scope=cfg.default_scope, log_level='ERROR')
    runner.load_or_resume()
    return runner.model


def through_init_cfg(config, file, work_dir):
    cfg = Config.fromfile(config)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=file)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def through_inferencer(config, file, work_dir):
    """The function that MMPreTrain's inferencers call."""
    return get_model(str(config), pretrained=file)


@pytest.mark.parametrize(
    ('case', 'load'),
    [
        ('cls_rope', through_init_cfg),
        ('cls_norope', through_inferencer),
        ('cls_22kto1k_scaled', through_inferencer),
        ('cls_22kto1k_scaled', through_init_cfg),
        ('cls_22kto1k_scaled', through_load_from),
    ],
)
def test_classifiers(classifier_config, tmp_path, case, load):
    expected = read_expected(case)
    model = load(classifier_config(expected), official_file(case), tmp_path).train()
    scales = (model.backbone.rope_scale, model.backbone.delta_scale)
    assert scales == (expected['arch']['rope_scale'], expected['arch']['delta_scale'])
    (tokens,) = model.extract_feat(expected['image'])
    assert_parity(tokens, expected['tokens_after_norm'], 'tokens')
    assert_parity(model.head((tokens,)), expected['logits_cls'], 'logits')
    assert_parity(model.head.aux_fc(tokens[:, :-1]), expected['logits_patch'], 'auxiliary logits')
    samples = [DataSample().set_gt_score(score) for score in expected['soft_target']]
    losses = model(expected['image'], samples, mode='loss')
    assert_parity(2 * losses['loss_cls'], expected['loss_cls'], 'main loss')
    assert_parity(2 * losses['loss_aux'], expected['loss_patch'], 'auxiliary loss')
    sum(losses.values()).backward()
    assert_gradients(model, expected['grads'])


def test_state_dict_of_a_classifier_needs_no_conversion(classifier_config, golden):
    expected, official = golden('cls_22kto1k_scaled')
    cfg = Config.fromfile(classifier_config(expected))
    cfg.model.backbone.update(rope_scale=4.0, delta_scale=2.0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    model.load_state_dict(official)
    assert_parity(model(expected['image']), expected['logits_cls'], 'logits')


def detector_config(path, expected=None, **changes):
    """Write a toy of a published detector, with the golden backbone and neck or with smaller ones."""
    arch = arch_of(expected) if expected else dict(zip(ARCH_KEYS, (16, 2, 32, 4, 4, 2, 16), strict=True))
    channels = expected['arch']['fpn_out'] if expected else 16
    width = arch['embed_dims']
    attention = dict(embed_dims=channels, num_heads=2)
    layer = dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=channels, feedforward_channels=channels))
    decoder = dict(num_layers=1, layer_cfg=layer | dict(cross_attn_cfg=attention))
    model = dict(
        num_queries=20,
        backbone=dict(arch=arch | dict(_delete_=True), with_cp=False, **dict(init_cfg=None) | changes),
        neck=dict(in_channels=width, out_channels=channels),
        encoder=dict(num_layers=1, layer_cfg=layer),
        decoder=decoder,
        positional_encoding=dict(num_feats=channels // 2),
        bbox_head=dict(embed_dims=channels),
    )
    base = CONFIGS / 'dino/defocus_mamba_base_12ep.py'
    path.write_text(f'_base_ = {str(base)!r}\nmodel = {model!r}\n')
    return path


ARCH_KEYS = ('embed_dims', 'num_layers', 'inner_dims', 'state_dims', 'conv_kernel', 'dt_rank', 'group_size')


@pytest.mark.parametrize(('case', 'load'), [('det_window', through_load_from), ('det_raster', through_init_cfg)])
def test_detectors(tmp_path, case, load):
    expected = read_expected(case)
    arch = expected['arch']
    config = detector_config(
        tmp_path / 'detector.py',
        expected,
        token_order='window' if arch['window_order'] else 'raster',
        pretrain_size=arch['pretrain_size'],
        rope_scale=arch['rope_scale'],
        delta_scale=arch['delta_scale'],
        drop_path_rate=0.0,
    )
    model = load(config, official_file(case), tmp_path).train()
    (feature,) = model.backbone(expected['image'])
    assert_parity(feature, expected['feature'], 'feature')
    pyramid = model.neck((feature,))
    for level, (actual, wanted) in enumerate(zip(pyramid, expected['pyramid'], strict=True)):
        assert_parity(actual, wanted, f'pyramid level {level}')
    loss = sum((level * weight).mean() for level, weight in zip(pyramid, expected['pyramid_weights'], strict=True))
    assert_parity(loss, expected['loss'], 'loss')
    loss.backward()
    parts = torch.nn.ModuleDict({'backbone': model.backbone, 'neck': model.neck})
    assert_gradients(parts, expected['grads'])


@pytest.mark.parametrize('prefix', [{}, {'prefix': 'backbone.'}])
def test_backbone_of_a_detector_from_an_official_classifier(tmp_path, prefix):
    """At the classifier's own size both scales are 1, so the features must be equal."""
    expected = read_expected('cls_rope')
    changes = dict(pretrain_size=64, rope_scale=None, delta_scale=None, drop_path_rate=0.0, final_norm_eps=1e-6)
    init_cfg = dict(type='Pretrained', checkpoint=official_file('cls_rope'), **prefix)
    expected['arch']['fpn_out'] = 16
    cfg = Config.fromfile(detector_config(tmp_path / 'detector.py', expected, **changes, init_cfg=init_cfg))
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert (backbone.rope_scale, backbone.delta_scale) == ('auto', 'auto')
    (feature,) = backbone(expected['image'])
    tokens = expected['tokens_after_norm'][:, :-1]
    assert_parity(feature.flatten(2).transpose(1, 2), tokens, 'feature')


def test_official_detector_finds_boxes_on_a_photograph(tmp_path):
    """A whole official file, made from a detector of ours, in MMDetection's inferencer."""
    config = detector_config(tmp_path / 'detector.py', drop_path_rate=0.0)
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    official = mmdefocus_to_official(model.state_dict())
    assert 'backbone.blocks.1.mixer.A_log' in official
    torch.save({'meta': {'epoch': 12}, 'message_hub': {}, 'state_dict': official}, tmp_path / 'official.pth')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'ours.pth')
    photo = tmp_path / 'flower.jpg'
    Image.fromarray(load_sample_images().images[1]).resize((160, 107)).save(photo)

    found = {}
    for name in ('official', 'ours'):
        inferencer = DetInferencer(str(config), str(tmp_path / f'{name}.pth'), device='cpu', show_progress=False)
        (found[name],) = inferencer(str(photo), out_dir=str(tmp_path / 'out'))['predictions']
    boxes = np.array(found['official']['bboxes'])
    assert boxes.shape == (300, 4)
    assert boxes.min() >= 0
    assert (boxes.max(axis=0) <= (160, 107, 160, 107)).all()
    assert found['official'] == found['ours']
    assert (tmp_path / 'out/vis/flower.jpg').is_file()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda state: state.update(pos_embed=torch.ones(1)), '1 keys do not belong to the official .*: pos_embed'),
        (lambda state: state['norm.bias'].fill_(torch.nan), r'norm\.bias has NaN or infinite elements'),
        (lambda state: state['head.bias'].fill_(torch.inf), r'head\.bias has NaN or infinite elements'),
        (lambda state: state.update(cls_token='text'), 'expected tensors, got cls_token of type str'),
    ],
)
def test_damaged_official_files_are_errors_with_their_name(tmp_path, change, message):
    content = read_checkpoint(official_file('cls_rope'))
    change(content['model'])
    torch.save(content, tmp_path / 'changed.pth')
    with pytest.raises(CheckpointError, match=rf'changed\.pth: .*{message}'):
        load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / 'changed.pth'))
