"""The detectors with FCViT and DAT++: their recipes, their parameters, and a small training step of each kind."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import build_runner

CONFIGS = Path(__file__).parents[2] / 'configs'
WIDTHS = {
    'b12': [64, 128, 320, 512],
    'b24': [64, 128, 320, 512],
    'tiny': [64, 128, 256, 512],
    'small': [96, 192, 384, 768],
    'base': [128, 256, 512, 1024],
}
# Drop path, learning rate, weight decay, images on each GPU and in a batch.
FCVIT, DAT, DAT_RETINANET, DINO = (2e-4, 1e-4, 4, 32), (4e-4, 0.05, 2, 64), (2e-4, 0.05, 2, 64), (2e-4, 1e-4, 2, 16)
RECIPES = {
    'mask_rcnn/fcvit_b12_12ep': (0.0, *FCVIT),
    'mask_rcnn/fcvit_b24_12ep': (0.0, *FCVIT),
    'mask_rcnn/dat_pp_tiny_12ep': (0.0, *DAT),
    'mask_rcnn/dat_pp_tiny_36ep': (0.3, *DAT),
    'mask_rcnn/dat_pp_small_12ep': (0.1, *DAT),
    'mask_rcnn/dat_pp_small_36ep': (0.5, *DAT),
    'cascade_mask_rcnn/dat_pp_tiny_12ep': (0.0, *DAT),
    'cascade_mask_rcnn/dat_pp_tiny_36ep': (0.1, *DAT),
    'cascade_mask_rcnn/dat_pp_small_36ep': (0.5, *DAT),
    'cascade_mask_rcnn/dat_pp_base_36ep': (0.8, 4e-4, 0.05, 1, 64),
    'retinanet/dat_pp_tiny_12ep': (0.0, *DAT_RETINANET),
    'retinanet/dat_pp_tiny_36ep': (0.2, *DAT_RETINANET),
    'retinanet/dat_pp_small_12ep': (0.1, *DAT_RETINANET),
    'retinanet/dat_pp_small_36ep': (0.5, *DAT_RETINANET),
    'dino/fcvit_b24_12ep': (0.0, *DINO),
    'dino/fcvit_b24_36ep': (0.0, *DINO),
    'dino/dat_pp_tiny_12ep': (0.0, *DINO),
    'dino/dat_pp_tiny_36ep': (0.3, *DINO),
    'dino/dat_pp_small_12ep': (0.1, *DINO),
    'dino/dat_pp_small_36ep': (0.5, *DINO),
}
RCNNS = [name for name in RECIPES if 'rcnn' in name]
FOUR, LAST_THREE = (0, 1, 2, 3), (1, 2, 3)
SHORT_SIDES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
NANO = {'FCViT': [32, 48, 64, 96], 'DAT': [32, 64, 96, 128]}


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@cache
def read(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def load(name):
    return copy.deepcopy(read(name))


@pytest.mark.parametrize('name', RECIPES)
def test_backbone_and_neck(name):
    model = load(name).model
    family, arch = ('FCViT', name.split('_')[-2]) if 'fcvit' in name else ('DAT', name.split('_')[-2])
    stages = FOUR if name in RCNNS else LAST_THREE
    layer_scale = {'layer_scale': 1e-6} if family == 'FCViT' else {}
    expected = {'type': family, 'arch': arch, 'out_indices': stages, 'drop_path_rate': RECIPES[name][0]}
    assert model.backbone == {**expected, 'with_cp': True, 'init_cfg': None, **layer_scale}
    widths = [WIDTHS[arch][stage] for stage in stages]
    if 'dino' in name:
        assert (model.neck.type, model.neck.in_channels, model.neck.num_outs) == ('ChannelMapper', widths, 4)
        assert model.encoder.layer_cfg.self_attn_cfg.num_levels == 4
        return
    neck = {'type': 'FPN', 'in_channels': widths, 'out_channels': 256, 'num_outs': 5}
    if 'retinanet' in name:
        neck |= {'start_level': 0}
    if 'retinanet' in name or name.startswith('mask_rcnn/dat'):
        neck |= {'add_extra_convs': 'on_input'}
    assert model.neck == neck
    assert model.data_preprocessor.pad_size_divisor == 32


@pytest.mark.parametrize('name', RECIPES)
def test_schedule_and_batches(name):
    cfg = load(name)
    _, rate, decay, images, batch = RECIPES[name]
    epochs = int(name[-4:-2])
    assert cfg.train_cfg.max_epochs == epochs
    *warmup, steps = cfg.param_scheduler
    milestones = [27, 33] if epochs == 36 else [11] if 'dino' in name else [8, 11]
    steps.pop('_scope_', None)
    assert steps == {
        'type': 'MultiStepLR',
        'begin': 0,
        'end': epochs,
        'by_epoch': True,
        'milestones': milestones,
        'gamma': 0.1,
    }
    linear = {'type': 'LinearLR', 'start_factor': 0.001, 'by_epoch': False, 'begin': 0, 'end': 500}
    assert [{key: entry[key] for key in linear} for entry in warmup] == ([] if 'dino' in name else [linear])
    assert cfg.train_dataloader.batch_size == images
    assert cfg.auto_scale_lr.base_batch_size == batch
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', rate, decay)
    assert ('clip_grad' in cfg.optim_wrapper) == ('dino' in name)


@pytest.mark.parametrize('name', RECIPES)
def test_data_and_hooks_are_those_of_mmdefocus(name):
    cfg = load(name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == 'DefocusCocoDataset'
    metric = ['bbox', 'segm'] if name in RCNNS else 'bbox'
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert (evaluator.type, evaluator.metric) == ('DefocusCocoMetric', metric)
    hooks = {key: hook.type for key, hook in cfg.default_hooks.items()}
    assert {key: hook for key, hook in hooks.items() if hook.startswith('Defocus')} == {
        'checkpoint': 'DefocusCheckpointHook',
        'sampler_seed': 'DefocusEpochSeedHook',
        'finite_loss': 'DefocusFiniteLossHook',
        'class_count': 'DefocusClassCountHook',
        'ground_truth_check': 'DefocusGroundTruthCheckHook',
    }
    assert cfg.randomness == {'seed': None, 'diff_rank_seed': True}


@pytest.mark.parametrize('name', [name for name in RECIPES if 'dino' not in name])
def test_augmentation(name):
    flip = {'type': 'RandomFlip', 'prob': 0.5}
    first, annotations, *steps, last = load(name).train_dataloader.dataset.pipeline
    assert (first['type'], last['type']) == ('LoadImageFromFile', 'PackDetInputs')
    masks = {'with_mask': True} if name in RCNNS else {}
    assert annotations == {'type': 'LoadAnnotations', 'with_bbox': True, **masks}
    if 'fcvit' in name:
        assert steps == [{'type': 'Resize', 'scale': (1333, 800), 'keep_ratio': True}, flip]
        return
    assert steps[0] == flip
    plain, crop = steps[1]['transforms']
    assert plain == crop[2:]
    assert plain[0]['scales'] == [(side, 1333) for side in SHORT_SIDES]
    assert crop[0]['scales'] == [(side, 1333) for side in (400, 500, 600)]
    assert (crop[1]['crop_type'], crop[1]['crop_size']) == ('absolute_range', (384, 600))


def test_box_heads_of_the_cascade():
    roi_head = load('cascade_mask_rcnn/dat_pp_small_36ep').model.roi_head
    stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    assert [head.bbox_coder.target_stds for head in roi_head.bbox_head] == stds
    for head in roi_head.bbox_head:
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ('ConvFCBBoxHead', 4, 1)
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight, head.reg_decoded_bbox) == ('GIoULoss', 10.0, True)
        assert not head.reg_class_agnostic


def shrunken(name, **options):
    """Load a config as the tools do, with the smallest backbone and fewer, narrower layers elsewhere."""
    cfg = read(name)
    widths = NANO[cfg.model.backbone.type]
    options['model.backbone.arch'] = 'nano'
    options['model.neck.in_channels'] = [widths[stage] for stage in cfg.model.backbone.out_indices]
    if 'dino' in name:
        options |= {'model.encoder.num_layers': 1, 'model.decoder.num_layers': 1, 'model.num_queries': 20}
    else:
        options['model.neck.out_channels'] = 32
    if 'retinanet' in name:
        options |= {'model.bbox_head.in_channels': 32, 'model.bbox_head.feat_channels': 32}
    if 'rcnn' in name:
        options |= {'model.rpn_head.in_channels': 32, 'model.rpn_head.feat_channels': 32}
        several = len(cfg.model.roi_head.bbox_head) if 'cascade' in name else 0
        heads = [f'bbox_head.{i}' for i in range(several)] or ['bbox_head']
        for head in (*heads, 'mask_head'):
            options |= {f'model.roi_head.{head}.in_channels': 32, f'model.roi_head.{head}.conv_out_channels': 32}
        options |= {f'model.roi_head.{head}.fc_out_channels': 64 for head in heads}
        options |= {f'model.roi_head.{kind}_roi_extractor.out_channels': 32 for kind in ('bbox', 'mask')}
        options['model.train_cfg.rpn_proposal.max_per_img'] = options['model.test_cfg.rpn.max_per_img'] = 40
        for rcnn in [f'rcnn.{i}' for i in range(several)] or ['rcnn']:
            options[f'model.train_cfg.{rcnn}.sampler.num'] = 32
    return load_config(CONFIGS / f'{name}.py', options)


def build(cfg):
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', RECIPES)
def test_optimiser(name):
    cfg = shrunken(name)
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    _, rate, decay, *_ = RECIPES[name]
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    assert len(groups) == sum(1 for _ in model.parameters())
    norms = {
        f'{module_name}.{part}'
        for module_name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm)
        for part in ('weight', 'bias')
    }
    assert any(part.startswith('backbone.') for part in norms)
    undecayed = set()
    for parameter_name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        slow = 'dino' in name and any(
            part in parameter_name for part in ('backbone', 'sampling_offsets', 'reference_points')
        )
        assert group['lr'] == pytest.approx(rate * (0.1 if slow else 1)), parameter_name
        assert group['weight_decay'] in (0, decay)
        if group['weight_decay'] == 0:
            undecayed.add(parameter_name)
    tables = {entry for entry, _ in model.named_parameters() if 'rpe_table' in entry}
    assert bool(tables) == ('dat' in name)
    assert undecayed == (norms | tables if 'dat' in name and 'dino' not in name else set())


def test_tables_of_neighbourhood_attention_decay():
    cfg = shrunken('mask_rcnn/dat_pp_tiny_12ep')
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    tables = {name: decays[id(p)] for name, p in model.named_parameters() if name.endswith('rpb')}
    assert len(tables) == 3
    assert set(tables.values()) == {0.05}


@pytest.mark.parametrize('folder', ['mask_rcnn', 'cascade_mask_rcnn', 'retinanet', 'dino'])
def test_metafile_names_every_config(folder):
    content = yaml.safe_load((CONFIGS / folder / 'metafile.yml').read_text())
    ours = [name for name in RECIPES if name.startswith(f'{folder}/')]
    models = [model for model in content['Models'] if f'{folder}/{model["Config"].split("/")[-1][:-3]}' in ours]
    assert [model['Config'] for model in models] == [f'configs/{name}.py' for name in ours]
    for model, name in zip(models, ours, strict=True):
        with torch.device('meta'):
            detector = MODELS.build(load(name).model)
        assert model['Metadata']['Parameters'] == sum(p.numel() for p in detector.parameters())
        assert 'Weights' not in model


SMALL = {'type': 'Resize', 'scale': (112, 80), 'keep_ratio': True}


def runner_of(name, photos_coco, work_dir, **options):
    masks = {'with_mask': True} if name in RCNNS or 'photos' in name else {}
    pipeline = [
        {'type': 'LoadImageFromFile'},
        {'type': 'LoadAnnotations', 'with_bbox': True, **masks},
        SMALL,
        {'type': 'PackDetInputs'},
    ]
    cfg = shrunken(name, data_root=f'{photos_coco}/', **options)
    cfg.train_dataloader.dataset.pipeline = pipeline
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.pipeline[1] = SMALL
    cfg.work_dir = str(work_dir)
    cfg.train_cfg.max_epochs = 1
    cfg.randomness.seed = 0
    cfg.train_cfg.val_interval = 1
    apply_train_options(cfg)
    return build_runner(cfg)


LOSSES = {
    'mask_rcnn/fcvit_b24_12ep': {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'},
    'cascade_mask_rcnn/dat_pp_tiny_12ep': {
        *('loss_rpn_cls', 'loss_rpn_bbox'),
        *(f's{stage}.loss_{kind}' for stage in range(3) for kind in ('cls', 'bbox', 'mask')),
    },
    'retinanet/dat_pp_small_36ep': {'loss_cls', 'loss_bbox'},
    'dino/dat_pp_tiny_12ep': {'loss_cls', 'loss_bbox', 'loss_iou'},
}


@pytest.mark.parametrize('name', LOSSES)
def test_detector_learns_from_the_photographs(name, photos_coco, tmp_path):
    runner = runner_of(name, photos_coco, tmp_path)
    model = runner.model.train()
    model.init_weights()
    batch = model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    total, losses = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    assert losses.keys() >= LOSSES[name]
    assert all(losses[loss].isfinite() for loss in LOSSES[name])
    gradients = {entry: p.grad for entry, p in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    zero = {entry.split('.')[0] for entry, gradient in gradients.items() if not gradient.any()}
    # DINO has layers before others that start at zero. The anchors of the coarsest levels do not fit into such images,
    # and the cascade does not train on those.
    allowed = {'dino': {'bbox_head', 'level_embed'}, 'cascade_mask_rcnn': {'neck'}}
    assert zero <= allowed.get(name.split('/')[0], set())


def test_mask_rcnn_trains_and_is_evaluated_with_all_hooks(photos_coco, tmp_path):
    runner = runner_of('mask_rcnn/dat_pp_tiny_photos', photos_coco, tmp_path, **{'model.test_cfg.rcnn.max_per_img': 10})
    runner.train()
    assert (tmp_path / 'epoch_1.pth').is_file()
    scalars = runner.message_hub.log_scalars
    for key in ('bbox_mAP', 'segm_mAP', 'bbox_mAP_s', 'segm_mAP_s'):
        assert 0 <= scalars[f'val/coco/{key}'].current() <= 1
