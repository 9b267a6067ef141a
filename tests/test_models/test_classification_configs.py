"""The classification configs: their numbers, their parameters, and a toy training of each kind."""

import copy
import re
import shutil
from functools import cache
from importlib import resources
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import HOOKS, MODELS, TRANSFORMS

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import build_runner

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
TRAINED = ['defocus_mamba_small', 'defocus_mamba_base', 'defocus_mamba_large_21k', 'defocus_mamba_large']
PLAIN = {'band_pass': False, 'absolute_positions': True}
# Configs with the recipe of defocus_mamba_base, and their backbone settings.
NETWORKS = {
    'defocus_mamba_small': {'type': 'DefocusMamba', 'arch': 'small'},
    'defocus_mamba_base': {'type': 'DefocusMamba', 'arch': 'base'},
    'defocus_vit_small': {'type': 'DefocusViT', 'arch': 'small'},
    'defocus_vit_base': {'type': 'DefocusViT', 'arch': 'base'},
    'defocus_vit_base_noncausal': {'type': 'DefocusViT', 'arch': 'base', 'causal': False},
    'defocus_retnet_base': {'type': 'DefocusRetNet', 'arch': 'base'},
    'plain_vit_small': {'type': 'DefocusViT', 'arch': 'small', **PLAIN},
    'plain_vit_small_noncausal': {'type': 'DefocusViT', 'arch': 'small', 'causal': False, **PLAIN},
    'plain_vit_base': {'type': 'DefocusViT', 'arch': 'base', **PLAIN},
    'plain_vit_base_noncausal': {'type': 'DefocusViT', 'arch': 'base', 'causal': False, **PLAIN},
    'plain_retnet_base': {'type': 'DefocusRetNet', 'arch': 'base', **PLAIN},
    'plain_mamba_small': {'type': 'DefocusMamba', 'arch': 'small', 'rotary': False},
    'plain_mamba_base': {'type': 'DefocusMamba', 'arch': 'base', 'rotary': False},
}
NANO_WIDTH = 96
PHOTOS = {'china.jpg': 663, 'flower.jpg': 985}  # monastery, daisy


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@cache
def read(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def load(name):
    return copy.deepcopy(read(name))


@cache
def build(name):
    """A network of full size without values."""
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(load(name).model)


def hook(cfg, kind):
    (found,) = [hook for hook in cfg.default_hooks.values() if hook.type == kind]
    return {key: value for key, value in found.items() if key != 'type'}


def transform(pipeline, kind):
    found = [step for step in pipeline if step['type'] == kind]
    return found[0] if found else None


@pytest.mark.parametrize(
    ('name', 'side', 'epochs', 'warmup', 'lr', 'batch', 'drop_path', 'strong', 'checkpointing', 'scales'),
    [
        ('defocus_mamba_small', 224, 300, 20, 5e-4, 32, {'min_rate': 0.1, 'max_rate': 0.75}, True, False, None),
        ('defocus_mamba_base', 224, 300, 20, 5e-4, 32, {'min_rate': 0.1, 'max_rate': 0.75}, True, False, None),
        ('defocus_mamba_large_21k', 192, 90, 5, 1.25e-4, 64, {'max_rate': 0.4, 'mode': 'constant'}, False, True, None),
        ('defocus_mamba_large', 384, 20, 2, 2e-5, 32, {'min_rate': 0.1, 'max_rate': 0.7}, False, False, (4.0, 2.0)),
    ],
)
def test_recipe(name, side, epochs, warmup, lr, batch, drop_path, strong, checkpointing, scales):
    cfg = load(name)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports['imports'] == ['mmdefocus.models', 'mmdefocus.datasets.image_folder', 'mmdefocus.engine']
    backbone = cfg.model.backbone
    assert (backbone.img_size, backbone.out_type, backbone.get('with_cp', False)) == (side, 'raw', checkpointing)
    assert (backbone.get('rope_scale', 1), backbone.get('delta_scale', 1)) == (scales or (1, 1))
    assert cfg.model.head.loss == {'type': 'LabelSmoothLoss', 'label_smooth_val': 0.1}

    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.auto_scale_lr == {'base_batch_size': 512, 'enable': True}
    assert cfg.train_dataloader.batch_size == batch
    wrapper = cfg.optim_wrapper
    assert (wrapper.type, wrapper.dtype, wrapper.clip_grad) == ('AmpOptimWrapper', 'bfloat16', {'max_norm': 10.0})
    adamw = {'type': 'AdamW', 'lr': lr, 'betas': (0.9, 0.999), 'eps': 1e-8, 'weight_decay': 0.05}
    assert wrapper.optimizer == adamw
    schedule = cfg.param_scheduler
    assert (schedule.type, schedule.warmup, schedule.convert_to_iter_based) == ('DefocusWarmupCosineLR', warmup, True)
    assert lr * schedule.start_factor == pytest.approx(5e-7)
    assert lr * schedule.end_factor == pytest.approx(5e-6)

    assert hook(cfg, 'DefocusScheduledDropPathHook') == drop_path
    assert hook(cfg, 'DefocusOptimizerStepEMAHook') == {'momentum': pytest.approx(1 - 0.9999)}
    assert hook(cfg, 'DefocusFiniteLossHook') == hook(cfg, 'DefocusClassCountHook') == {}
    assert (cfg.default_hooks.sampler_seed.type, cfg.randomness.diff_rank_seed) == ('DefocusEpochSeedHook', True)
    sampler = cfg.train_dataloader.sampler
    assert sampler.type == ('RepeatAugSampler' if strong else 'DefaultSampler')
    assert sampler.get('num_repeats') == (3 if strong else None)


@pytest.mark.parametrize('name', TRAINED)
def test_augmentation(name):
    cfg = load(name)
    strong = name in ('defocus_mamba_small', 'defocus_mamba_base')
    pipeline = cfg.train_dataloader.dataset.pipeline
    crop = transform(pipeline, 'RandomResizedCrop')
    assert (crop.scale, crop.interpolation) == (cfg.model.backbone.img_size, 'bicubic')
    assert transform(pipeline, 'RandomFlip').prob == 0.5
    policy, erasing = transform(pipeline, 'RandAugment'), transform(pipeline, 'RandomErasing')
    if strong:
        assert (policy.policies, policy.magnitude_level, policy.magnitude_std) == ('timm_increasing', 9, 0.5)
        assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')
    else:
        assert policy is erasing is None
    assert transform(pipeline, 'ColorJitter') is None

    augment = MODELS.build(cfg.model | {'backbone': torch.nn.Identity(), 'head': None}).data_preprocessor.batch_augments
    chosen = [(type(step).__name__, step.alpha) if step else None for step in augment.augments]
    if strong:
        assert (chosen, augment.probs) == ([('Mixup', 0.8), ('CutMix', 1.0)], None), 'None is: equally often'
    else:
        assert (chosen, augment.probs) == ([('Mixup', 0.8), None], [0.5, 0.5])


@pytest.mark.parametrize(
    ('name', 'side'),
    [
        ('defocus_mamba_small', 224),
        ('defocus_mamba_base', 224),
        ('defocus_mamba_large_21k', 192),
        ('defocus_mamba_large_21k_eval_1k', 192),
        ('defocus_mamba_large', 384),
    ],
)
def test_evaluation(name, side):
    cfg = load(name)
    pipeline = cfg.test_dataloader.dataset.pipeline
    resize = transform(pipeline, 'ResizeEdge')
    assert (resize.scale, resize.edge, resize.interpolation) == (int(side * 256 / 224), 'short', 'bicubic')
    assert transform(pipeline, 'CenterCrop').crop_size == side
    assert (cfg.test_evaluator.type, cfg.test_evaluator.topk) == ('Accuracy', (1, 5))
    assert cfg.data_preprocessor['mean'] == [123.675, 116.28, 103.53]
    assert cfg.data_preprocessor['std'] == [58.395, 57.12, 57.375]
    with resources.as_file(resources.files('sklearn.datasets.images').joinpath('china.jpg')) as path:
        packed = Compose([TRANSFORMS.build(step) for step in pipeline])({'img_path': str(path)})
    assert packed['inputs'].shape == (3, side, side)


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_share_the_recipe(name):
    """Baselines are without the auxiliary loss and the rise of drop path; nothing else differs."""
    expected = load('defocus_mamba_base')
    expected.model.backbone = NETWORKS[name] | {'img_size': 224, 'out_type': 'raw'}
    expected.model.head.in_channels = 384 if 'small' in name else 768
    if name.startswith('plain'):
        expected.model.head.aux = None
        expected.default_hooks.drop_path.update(max_rate=0.1, mode='constant')
    assert load(name).to_dict() == expected.to_dict()


def test_drop_path_of_baselines_does_not_rise():
    hooks = {
        name: HOOKS.build({'type': 'DefocusScheduledDropPathHook', **hook(load(name), 'DefocusScheduledDropPathHook')})
        for name in NETWORKS
    }
    for name, drop_path in hooks.items():
        rates = [drop_path.rate(epoch, 300) for epoch in (0, 299)]
        assert rates == pytest.approx([0.1, 0.1] if name.startswith('plain') else [0.1, 0.75]), name


@pytest.mark.parametrize(
    ('name', 'counted', 'published', 'tolerance'),
    [
        ('defocus_mamba_small', 25_092_944, 25.1e6, 0.002),
        ('defocus_mamba_base', 92_650_832, 92.7e6, 0.001),
        ('defocus_mamba_large', 330_117_840, 330.1e6, 0.001),
        ('defocus_vit_base', 87_176_144, 87.4e6, 0.005),
        ('defocus_vit_base_noncausal', 87_176_144, 87.4e6, 0.005),
        ('defocus_retnet_base', 94_171_088, 92.7e6, 0.02),
        ('plain_vit_small', 22_041_064, 22.1e6, 0.005),
        ('plain_vit_small_noncausal', 22_041_064, 22.1e6, 0.005),
        ('plain_vit_base', 86_548_456, 86.6e6, 0.001),
        ('plain_vit_base_noncausal', 86_548_456, 86.6e6, 0.001),
        ('plain_retnet_base', 93_543_400, 93.6e6, 0.001),
        ('plain_mamba_small', 24_707_560, 24.7e6, 0.002),
        ('plain_mamba_base', 91_881_448, 91.9e6, 0.001),
    ],
)
def test_parameter_counts_are_the_published_ones(name, counted, published, tolerance):
    count = sum(parameter.numel() for parameter in build(name).parameters())
    assert count == counted
    assert count == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize('size', ['small', 'base'])
def test_plain_vit_is_deit_but_for_biases_of_norms_and_the_position_of_the_class_token(size):
    with torch.device('meta'):
        deit = timm.create_model(f'deit_{size}_patch16_224')
    norms_of_blocks = [module for block in deit.blocks for module in block.children() if hasattr(module, 'eps')]
    missing = sum(norm.bias.numel() for norm in norms_of_blocks) + deit.pos_embed[:, :1].numel()
    count = sum(parameter.numel() for parameter in build(f'plain_vit_{size}').parameters())
    assert count == sum(parameter.numel() for parameter in deit.parameters()) - missing


@pytest.mark.parametrize('name', NETWORKS)
def test_baselines_have_no_part_of_the_paper(name):
    model = build(name)
    keys = [key for key, _ in model.named_parameters()]
    is_plain, is_mamba = name.startswith('plain'), 'mamba' in name
    assert any('aux_fc' in key for key in keys) != is_plain
    filters = [key for key in keys if 'band_pass' in key or key.endswith('.freq')]
    layers = model.backbone.num_layers
    assert len(filters) == (0 if is_plain else layers if is_mamba else 2 * layers)
    assert ('backbone.pos_embed.weight' in keys) == (is_plain and not is_mamba)
    if 'vit' in name:
        assert {block.mixer.causal for block in model.backbone.layers} == {not name.endswith('noncausal')}


def weight_decays(name):
    """(name, parameter, weight decay) of every parameter."""
    model, wrapper_cfg = build(name), load(name).optim_wrapper
    wrapper_cfg.update(type='OptimWrapper')
    del wrapper_cfg['dtype'], wrapper_cfg['loss_scale']
    groups = build_optim_wrapper(model, wrapper_cfg).optimizer.param_groups
    decays = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    return [(name, parameter, decays[id(parameter)]) for name, parameter in model.named_parameters()]


@pytest.mark.parametrize('name', TRAINED)
def test_weight_decay(name):
    """On matrices and kernels alone."""
    for parameter_name, parameter, decay in weight_decays(name):
        free = parameter.ndim == 1 or parameter_name.endswith(('cls_token', 'A_log', 'freq', '.D', 'bias'))
        assert decay == (0.0 if free else 0.05), parameter_name


VIT_MATRICES = ['mixer.qkv', 'mixer.out_proj', 'ffn.up', 'ffn.down']
RETNET_MATRICES = [f'mixer.{name}_proj' for name in ('q', 'k', 'v', 'gate', 'out')] + ['ffn.gate', 'ffn.up', 'ffn.down']


@pytest.mark.parametrize(
    ('name', 'matrices', 'heads', 'free'),
    [
        ('defocus_vit_small', VIT_MATRICES, ['fc', 'aux_fc'], 'biases filters'),
        ('defocus_vit_base_noncausal', VIT_MATRICES, ['fc', 'aux_fc'], 'biases filters'),
        ('defocus_retnet_base', RETNET_MATRICES, ['fc', 'aux_fc'], 'filters'),
        ('plain_vit_base', VIT_MATRICES, ['fc'], 'biases positions'),
        ('plain_retnet_base', RETNET_MATRICES, ['fc'], 'positions'),
    ],
)
def test_weight_decay_of_vit_and_retnet(name, matrices, heads, free):
    decays = {(re.sub(r'layers\.\d+', 'layers.*', name), decay) for name, _, decay in weight_decays(name)}
    decayed = {name for name, decay in decays if decay == 0.05}
    assert decayed == {
        'backbone.patch_embed.projection.weight',
        *(f'backbone.layers.*.{matrix}.weight' for matrix in matrices),
        *(f'head.{head}.weight' for head in heads),
    }
    expected = {f'backbone.{name}' for name in ('cls_token', 'patch_embed.projection.bias', 'norm.weight', 'norm.bias')}
    expected |= {f'backbone.layers.*.{norm}.weight' for norm in ('norm', 'ffn_norm')}
    expected |= {f'head.{head}.bias' for head in heads}
    if 'biases' in free:
        expected |= {f'backbone.layers.*.{matrix}.bias' for matrix in matrices}
    if 'filters' in free:
        expected |= {f'backbone.layers.*.mixer.band_pass.{name}' for name in ('log_decay', 'freq')}
    if 'positions' in free:
        expected.add('backbone.pos_embed.weight')
    assert {name for name, decay in decays if decay == 0.0} == expected
    assert len(decays) == len(decayed) + len(expected)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Loader of a config with the smallest network and two photographs, each twice, as ImageNet."""
    images = resources.files('sklearn.datasets.images')
    for split in ('train', 'val'):
        (tmp_path / 'data' / split).mkdir(parents=True)
        (tmp_path / 'data' / 'meta').mkdir(exist_ok=True)
        for photo in PHOTOS:
            shutil.copy(str(images.joinpath(photo)), tmp_path / 'data' / split)
        lines = [f'{photo} {label}' for photo, label in PHOTOS.items()] * 2
        (tmp_path / 'data' / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    monkeypatch.setattr('mmdefocus.models.heads.defocus_cls_head.imagenet1k_indices', lambda: list(range(1000)))

    def make(name):
        cfg = load_config(CONFIGS / f'{name}.py', work_dir=str(tmp_path / 'work'))
        cfg.model.backbone.arch = 'nano'
        cfg.model.head.in_channels = NANO_WIDTH
        if 'hidden_dims' in cfg.model.head:
            cfg.model.head.hidden_dims = 3 * NANO_WIDTH
        for loader in (cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')):
            if loader is not None:
                loader.update(batch_size=2, num_workers=0)
                loader.dataset.data_root = str(tmp_path / 'data')
        return cfg

    return make


@pytest.mark.parametrize(
    'name',
    [
        'defocus_mamba_base',
        'defocus_mamba_large_21k',
        'defocus_mamba_large',
        'defocus_vit_base',
        'defocus_retnet_base',
        'plain_vit_base_noncausal',
    ],
)
def test_toy_training_reaches_every_parameter(name, tiny):
    cfg = tiny(name)
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler.warmup = 1
    cfg.auto_scale_lr.base_batch_size = 2  # else steps are smaller than float32 can see
    # Without decay and drop path, every parameter changes only by its gradient.
    cfg.optim_wrapper.optimizer.weight_decay = 0.0
    cfg.default_hooks.drop_path.update(min_rate=0.0, max_rate=0.0)
    cfg.load_from = None
    runner = build_runner(cfg)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert all((after[key] != value).any() for key, value in before.items())
    has_validation = name != 'defocus_mamba_large_21k'
    assert ('val/accuracy/top1' in runner.message_hub.log_scalars) == has_validation


def test_21k_model_is_evaluated_on_1k(tiny):
    cfg = tiny('defocus_mamba_large_21k_eval_1k')
    runner = build_runner(cfg)
    metrics = runner.test()
    assert set(metrics) == {'accuracy/top1', 'accuracy/top5'}
    assert runner.model.head.num_classes == 21_841
    (sample,) = runner.model.predict(torch.randn(1, 3, 192, 192))
    assert sample.pred_score.shape == (1000,)


def test_evaluation_config_cannot_train():
    with pytest.raises(UsageError, match='nothing to train'):
        apply_train_options(load_config(CONFIGS / 'defocus_mamba_large_21k_eval_1k.py'))


def test_label_that_the_head_has_no_class_for(tiny, tmp_path):
    """Found before mixup and cutmix."""
    (tmp_path / 'data' / 'meta' / 'train.txt').write_text('china.jpg 663\nflower.jpg 20000')
    with pytest.raises(
        ValueError, match=r'labels from 0 to 999 \(num_classes=1000\), got 20000; data set and head have'
    ):
        build_runner(tiny('defocus_mamba_base')).train()


@pytest.mark.parametrize(
    ('name', 'removed'),
    [
        ('defocus_mamba_base_finetune', {'ema'}),
        ('defocus_mamba_base_linear_probe', {'ema', 'drop_path'}),
        ('defocus_mamba_large_21k_eval_1k', {'ema', 'drop_path'}),
    ],
)
def test_hooks_are_removed_by_name(name, removed):
    assert load('defocus_mamba_base').default_hooks.keys() - load(name).default_hooks.keys() == removed
    assert None not in load(name).default_hooks.values(), "MMEngine's runner removes its own hooks only"


def test_hooks_of_a_user_are_added_to_those_of_the_recipe(tiny):
    cfg = tiny('defocus_mamba_base')
    cfg.custom_hooks = [
        {'type': 'DefocusScheduledDropPathHook', 'max_rate': 0.3, 'mode': 'constant'},
        {'type': 'EarlyStoppingHook', 'monitor': 'accuracy/top1'},
    ]
    cfg.default_hooks.ema = None
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler.warmup = 1
    cfg.load_from = None
    runner = build_runner(cfg)
    kinds = [type(hook).__name__ for hook in runner.hooks]
    assert 'EarlyStoppingHook' in kinds
    assert 'DefocusOptimizerStepEMAHook' not in kinds, 'None removes a hook'
    runner.train()
    assert runner.model.backbone.layers[-1].drop_path.drop_prob == pytest.approx(0.3), 'that of the user comes last'
