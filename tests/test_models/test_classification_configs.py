"""The published classification configs: their numbers, their parameters, and a toy training of each."""

import shutil
from importlib import resources
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS

from mmdefocus.apis.runner import UsageError, apply_train_options, build_runner, load_config

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
TRAINED = ['small', 'base', 'large_21k', 'large']
PHOTOS = {'china.jpg': 663, 'flower.jpg': 985}  # monastery, daisy


@pytest.fixture(autouse=True)
def mmpretrain_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def load(name):
    return Config.fromfile(CONFIGS / f'defocus_mamba_{name}.py')


def hook(cfg, kind):
    (found,) = [hook for hook in cfg.custom_hooks if hook.type == kind]
    return {key: value for key, value in found.items() if key != 'type'}


def transform(pipeline, kind):
    found = [step for step in pipeline if step['type'] == kind]
    return found[0] if found else None


@pytest.mark.parametrize(
    ('name', 'side', 'epochs', 'warmup', 'lr', 'batch', 'drop_path', 'strong', 'checkpointing', 'scales'),
    [
        ('small', 224, 300, 20, 5e-4, 32, {'min_rate': 0.1, 'max_rate': 0.75}, True, False, None),
        ('base', 224, 300, 20, 5e-4, 32, {'min_rate': 0.1, 'max_rate': 0.75}, True, False, None),
        ('large_21k', 192, 90, 5, 1.25e-4, 64, {'max_rate': 0.4, 'mode': 'constant'}, False, True, None),
        ('large', 384, 20, 2, 2e-5, 32, {'min_rate': 0.1, 'max_rate': 0.7}, False, False, (4.0, 2.0)),
    ],
)
def test_recipe(name, side, epochs, warmup, lr, batch, drop_path, strong, checkpointing, scales):
    cfg = load(name)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.custom_imports['imports'] == ['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine']
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
    assert (schedule.type, schedule.warmup, schedule.convert_to_iter_based) == ('WarmupCosineLR', warmup, True)
    assert lr * schedule.start_factor == pytest.approx(5e-7)
    assert lr * schedule.end_factor == pytest.approx(5e-6)

    assert hook(cfg, 'ScheduledDropPathHook') == drop_path
    assert hook(cfg, 'EMAHook') == {'momentum': pytest.approx(1 - 0.9999)}
    assert hook(cfg, 'FiniteLossHook') == hook(cfg, 'ClassCountHook') == {}
    sampler = cfg.train_dataloader.sampler
    assert sampler.type == ('RepeatAugSampler' if strong else 'DefaultSampler')
    assert sampler.get('num_repeats') == (3 if strong else None)


@pytest.mark.parametrize('name', TRAINED)
def test_augmentation(name):
    cfg = load(name)
    strong = name in ('small', 'base')
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
    [('small', 224), ('base', 224), ('large_21k', 192), ('large_21k_eval_1k', 192), ('large', 384)],
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


@pytest.mark.parametrize(('name', 'parameters'), [('small', 25_092_944), ('base', 92_650_832), ('large', 330_117_840)])
def test_parameter_counts_are_the_published_ones(name, parameters):
    with torch.device('meta'):
        model = MODELS.build(load(name).model)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize('name', TRAINED)
def test_weight_decay(name, tiny):
    """On matrices and kernels alone."""
    cfg = tiny(name)
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    decays = {id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    for parameter_name, parameter in runner.model.named_parameters():
        free = parameter.ndim == 1 or parameter_name.endswith(('cls_token', 'A_log', 'freq', '.D', 'bias'))
        assert decays[id(parameter)] == (0.0 if free else 0.05), parameter_name


@pytest.fixture
def tiny(tmp_path, monkeypatch, toy_arch):
    """Loader of a config with a toy network and two photographs as ImageNet, of which each is in the set twice."""
    images = resources.files('sklearn.datasets.images')
    for split in ('train', 'val'):
        (tmp_path / 'data' / split).mkdir(parents=True)
        (tmp_path / 'data' / 'meta').mkdir(exist_ok=True)
        for photo in PHOTOS:
            shutil.copy(str(images.joinpath(photo)), tmp_path / 'data' / split)
        lines = [f'{photo} {label}' for photo, label in PHOTOS.items()] * 2
        (tmp_path / 'data' / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    monkeypatch.setattr('mmdefocus.datasets.imagenet21k.imagenet1k_indices', lambda: list(range(1000)))

    def make(name):
        cfg = load_config(CONFIGS / f'defocus_mamba_{name}.py', work_dir=str(tmp_path / 'work'))
        cfg.model.backbone.arch = toy_arch
        cfg.model.head.in_channels = toy_arch['embed_dims']
        if 'hidden_dims' in cfg.model.head:
            cfg.model.head.hidden_dims = 3 * toy_arch['embed_dims']
        for loader in (cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')):
            if loader is not None:
                loader.update(batch_size=2, num_workers=0)
                loader.dataset.data_root = str(tmp_path / 'data')
        return cfg

    return make


@pytest.mark.parametrize('name', ['base', 'large_21k', 'large'])
def test_toy_training(name, tiny):
    cfg = tiny(name)
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler.warmup = 1
    cfg.auto_scale_lr.base_batch_size = 2  # else steps are smaller than float32 can see
    runner = build_runner(cfg)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert all((after[key] != value).any() for key, value in before.items())
    has_validation = name != 'large_21k'
    assert ('val/accuracy/top1' in runner.message_hub.log_scalars) == has_validation


def test_21k_model_is_evaluated_on_1k(tiny):
    cfg = tiny('large_21k_eval_1k')
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
        ValueError, match=r'labels from 0 to 999 \(num_classes=1000\), got 20000; the data set has other'
    ):
        build_runner(tiny('base')).train()
