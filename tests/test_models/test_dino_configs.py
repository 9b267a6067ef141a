"""The DINO configs: their numbers, their parameters, and a toy training step of each kind."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from detector_options import DETECTOR
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpretrain.registry import MODELS as CLASSIFIERS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'dino'
# Backbone settings of each network, besides those that all share.
BASE_SCALES = {'arch': 'base', 'pretrain_size': 224, 'rope_scale': 20.0, 'delta_scale': 4.57, 'drop_path_rate': 0.5}
BACKBONES = {
    'defocus_mamba_base': {'type': 'DefocusMamba', **BASE_SCALES},
    'defocus_mamba_large': {
        'type': 'DefocusMamba',
        'arch': 'large',
        'pretrain_size': 384,
        'rope_scale': 7.13,
        'delta_scale': 2.67,
        'drop_path_rate': 0.5,
    },
    'defocus_vit_base': {'type': 'DefocusViT', **BASE_SCALES},
    'defocus_retnet_base': {'type': 'DefocusRetNet', **BASE_SCALES},
    'plain_vit_base_noncausal': {
        'type': 'DefocusViT',
        **BASE_SCALES,
        'causal': False,
        'band_pass': False,
        'absolute_positions': True,
        'drop_path_rate': 0.1,
    },
}
RELEASE = 'https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
PUBLISHED = {
    'defocus_mamba_base': RELEASE + 'defocus_mamba_base_cls.pth',
    'defocus_mamba_large': RELEASE + 'defocus_mamba_large_cls_1k.pth',
}
NAMES = [f'{network}_{epochs}ep' for network in BACKBONES for epochs in (12, 36)]
NANO_WIDTH = 96
SHORT_SIDES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@cache
def read(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def load(name):
    return copy.deepcopy(read(name))


@pytest.mark.parametrize('name', NAMES)
def test_backbone_and_neck(name):
    model = load(name).model
    network = name.rpartition('_')[0]
    weights = {'type': 'Pretrained', 'checkpoint': PUBLISHED[network]} if network in PUBLISHED else None
    assert model.backbone.pop('init_cfg') == weights
    common = {'token_order': 'window', 'final_norm_eps': 1e-5, 'with_cp': True, **DETECTOR}
    assert model.backbone == BACKBONES[network] | common
    assert model.neck == {
        'type': 'SimpleFeaturePyramid',
        'in_channels': 1024 if 'large' in name else 768,
        'out_channels': 256,
        'num_outs': 4,
        'norm_cfg': {'type': 'DefocusLN2d', 'eps': 1e-5},
    }


@pytest.mark.parametrize('name', NAMES)
def test_detector_is_four_scale_dino(name):
    model = load(name).model
    assert (model.type, model.num_queries, model.encoder.num_layers, model.decoder.num_layers) == ('DINO', 900, 6, 6)
    assert model.encoder.layer_cfg.self_attn_cfg.num_levels == 4
    assert model.bbox_head.num_classes == 80
    assert model.data_preprocessor.pad_size_divisor == 1
    assert (model.positional_encoding.temperature, model.positional_encoding.offset) == (10000, -0.5)
    assert model.bbox_head.loss_cls.loss_weight == 2.0
    assert model.dn_cfg.group_cfg.num_dn_queries == 300


@pytest.mark.parametrize('name', NAMES)
def test_schedule_and_batches(name):
    cfg = load(name)
    epochs, milestones = (12, [11]) if '12ep' in name else (36, [27, 33])
    assert cfg.train_cfg.max_epochs == epochs
    (scheduler,) = cfg.param_scheduler
    assert (scheduler.type, scheduler.milestones, scheduler.gamma) == ('MultiStepLR', milestones, 0.1)
    assert (scheduler.begin, scheduler.end, scheduler.by_epoch) == (0, epochs, True)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == 'DefocusCocoDataset'
    imports = ['mmdefocus.models', 'mmdefocus.datasets.coco', 'mmdefocus.evaluation', 'mmdefocus.engine']
    assert cfg.custom_imports['imports'] == imports


@pytest.mark.parametrize('name', [*NAMES, 'defocus_mamba_base_36ep_photos', 'defocus_mamba_nano_digits'])
def test_hooks_and_random_numbers(name):
    cfg = load(name)
    hooks = {hook: cfg.default_hooks[hook].type for hook in ('sampler_seed', 'finite_loss', 'class_count')}
    expected = {
        'sampler_seed': 'DefocusEpochSeedHook',
        'finite_loss': 'DefocusFiniteLossHook',
        'class_count': 'DefocusClassCountHook',
    }
    assert hooks == expected
    assert cfg.randomness == {'seed': None, 'diff_rank_seed': True}


def test_augmentation_is_that_of_dino():
    pipeline = load(NAMES[0]).train_dataloader.dataset.pipeline
    (choice,) = [step for step in pipeline if step['type'] == 'RandomChoice']
    plain, crop = choice['transforms']
    assert [scale[0] for scale in plain[0]['scales']] == SHORT_SIDES
    assert {scale[1] for scale in plain[0]['scales']} == {1333}
    assert [scale[0] for scale in crop[0]['scales']] == [400, 500, 600]
    assert crop[1]['crop_size'] == (384, 600)
    assert [scale[0] for scale in crop[2]['scales']] == SHORT_SIDES


def make_toy(name):
    cfg = load(name)
    cfg.merge_from_dict(
        {
            'model.backbone.arch': 'nano',
            'model.backbone.pretrain_size': 64,
            'model.backbone.drop_path_rate': 0.0,
            'model.backbone.init_cfg': None,
            'model.neck.in_channels': NANO_WIDTH,
            'model.encoder.num_layers': 1,
            'model.decoder.num_layers': 2,
            'model.num_queries': 20,
        }
    )
    torch.manual_seed(0)
    return cfg, MODELS.build(cfg.model)


@pytest.mark.parametrize('network', BACKBONES)
def test_optimiser_groups(network):
    cfg, model = make_toy(f'{network}_36ep')
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.clip_grad_kwargs == {'max_norm': 0.1, 'norm_type': 2}
    assert type(wrapper.optimizer).__name__ == 'AdamW'
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {1e-4}
    for parameter_name, parameter in model.named_parameters():
        slow = any(part in parameter_name for part in ('backbone', 'sampling_offsets', 'reference_points'))
        assert rates[id(parameter)] == pytest.approx(2e-5 if slow else 2e-4), parameter_name


@pytest.mark.parametrize(
    ('name', 'total', 'backbone', 'neck'),
    [
        ('defocus_mamba_base_36ep', 115_360_140, 91_112_832, 5_560_000),
        ('defocus_mamba_large_12ep', 344_166_732, 317_674_240, 7_805_184),
        ('defocus_vit_base_36ep', 109_885_452, 85_638_144, 5_560_000),
        ('defocus_retnet_base_12ep', 116_880_396, 92_633_088, 5_560_000),
        ('plain_vit_base_noncausal_36ep', 110_026_764, 85_779_456, 5_560_000),
    ],
)
def test_parameter_counts(name, total, backbone, neck):
    cfg = load(name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    counts = [sum(p.numel() for p in module.parameters()) for module in (model, model.backbone, model.neck)]
    assert counts == [total, backbone, neck]
    models = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())['Models']
    assert {entry['Name']: entry['Metadata']['Parameters'] for entry in models}[name] == total


def test_metafile_names_every_config():
    entries = yaml.safe_load((CONFIGS / 'metafile.yml').read_text())['Models']
    entries = [entry for entry in entries if entry['Name'] in NAMES]  # test_instance_segmentation_configs.py has others
    assert [entry['Name'] for entry in entries] == NAMES
    for entry in entries:
        assert entry['Config'] == f'configs/dino/{entry["Name"]}.py'
        assert entry['Metadata']['Epochs'] == load(entry['Name']).train_cfg.max_epochs


@pytest.mark.parametrize('network', ['defocus_vit_base', 'defocus_retnet_base', 'plain_vit_base_noncausal'])
def test_backbone_starts_from_the_classifier_of_the_same_name(network, tmp_path):
    classifier = Config.fromfile(CONFIGS.parent / 'classification' / f'{network}.py').model
    classifier.backbone.arch, classifier.head.in_channels = 'nano', NANO_WIDTH
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        trained = CLASSIFIERS.build(classifier)
    torch.save({'state_dict': trained.state_dict()}, tmp_path / 'weights.pth')

    detector = load(f'{network}_12ep').model.backbone
    detector.arch = 'nano'
    detector.init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'weights.pth')}
    backbone = MODELS.build(detector)
    backbone.init_weights()
    weights = backbone.state_dict()
    assert weights.keys() == trained.backbone.state_dict().keys()
    assert all(torch.equal(weights[key], value) for key, value in trained.backbone.state_dict().items())
    assert (backbone.rope_scale, backbone.delta_scale) == (20.0, 4.57)


def make_batch():
    samples = []
    for size in ((100, 150), (128, 96)):
        boxes = InstanceData(bboxes=torch.tensor([[10.0, 10, 50, 60], [30, 40, 90, 95]]), labels=torch.tensor([3, 7]))
        meta = {'img_shape': size, 'ori_shape': size, 'scale_factor': (1, 1)}
        samples.append(DetDataSample(gt_instances=boxes, metainfo=meta))
    images = [torch.randint(0, 255, (3, *sample.img_shape), dtype=torch.uint8) for sample in samples]
    return {'inputs': images, 'data_samples': samples}


@pytest.mark.parametrize('network', sorted(BACKBONES.keys() - {'defocus_mamba_large'}))  # base, where both are toys
def test_toy_detector_trains_and_predicts(network):
    _, model = make_toy(f'{network}_12ep')
    model.init_weights()
    # DINO starts some layers from zero, which hides the gradients of the layers before them.
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.02)
    batch = model.data_preprocessor(make_batch(), training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    without_gradient = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    # No feature depends on a class token that comes last in a causal network: the feature map leaves it out.
    assert without_gradient == (set() if 'noncausal' in network else {'backbone.cls_token'})
    assert all(p.grad.isfinite().all() for p in model.parameters())

    model.eval()
    with torch.no_grad():
        predictions = model(**batch, mode='predict')
    assert all(torch.isfinite(prediction.pred_instances.bboxes).all() for prediction in predictions)
    assert [len(prediction.pred_instances) for prediction in predictions] == [300, 300]
