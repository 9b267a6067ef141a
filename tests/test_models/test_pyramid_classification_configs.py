"""The classification configs of FCViT, DAT++ and DAT: recipes, images, parameters, and a toy training of each."""

import copy
import re
import shutil
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import MaybeToTensor
from timm.scheduler.cosine_lr import CosineLRScheduler
from torchvision.transforms import CenterCrop, InterpolationMode, PILToTensor, Resize
from torchvision.transforms import Compose as TorchvisionCompose

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.models.checkpoint import mmdefocus_to_official

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
FCVIT = ['fcvit_tiny', 'fcvit_b12', 'fcvit_b24', 'fcvit_b48']
DAT = ['dat_pp_tiny', 'dat_pp_small', 'dat_pp_base', 'dat_pp_base_384']
DAT += ['dat_tiny', 'dat_small', 'dat_base', 'dat_base_384']
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


def photo(name='china.jpg'):
    return resources.as_file(resources.files('sklearn.datasets.images').joinpath(name))


@pytest.mark.parametrize(
    ('name', 'arch', 'drop_path', 'batch', 'base_batch', 'decay', 'clip'),
    [
        ('fcvit_tiny', 'tiny', 0.1, 128, 1024, 0.05, None),
        ('fcvit_b12', 'b12', 0.1, 128, 1024, 0.05, None),
        ('fcvit_b24', 'b24', 0.1, 128, 1024, 0.05, None),
        ('fcvit_b48', 'b48', 0.2, 128, 1024, 0.05, None),
        ('dat_pp_tiny', 'tiny', 0.2, 128, 512, 0.05, 5.0),
        ('dat_pp_small', 'small', 0.4, 128, 512, 0.05, 5.0),
        ('dat_pp_base', 'base', 0.7, 64, 512, 0.05, 5.0),
        ('dat_pp_base_384', 'base', 0.6, 24, 512, 1e-8, 5.0),
        ('dat_tiny', 'v1-tiny', 0.2, 128, 512, 0.05, 5.0),
        ('dat_small', 'v1-small', 0.3, 128, 512, 0.05, 5.0),
        ('dat_base', 'v1-base', 0.5, 128, 512, 0.05, 1.0),
        ('dat_base_384', 'v1-base', 0.5, 24, 512, 1e-8, 5.0),
    ],
)
def test_recipe(name, arch, drop_path, batch, base_batch, decay, clip):
    cfg = load(name)
    assert cfg.default_scope == 'mmpretrain'
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch) == ('FCViT' if name in FCVIT else 'DAT', arch)
    assert backbone.drop_path_rate == drop_path
    assert (backbone.get('img_size', 224), backbone.get('window_size', 7)) == (
        (384, 12) if name == 'dat_base_384' else (224, 7)
    )
    assert cfg.model.head.loss == {'type': 'LabelSmoothLoss', 'label_smooth_val': 0.1}
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler', 'without repeated augmentation'
    assert cfg.auto_scale_lr == {'base_batch_size': base_batch, 'enable': True}
    wrapper = cfg.optim_wrapper
    assert (wrapper.optimizer.type, wrapper.optimizer.betas) == ('AdamW', (0.9, 0.999))
    assert (wrapper.optimizer.eps, wrapper.optimizer.weight_decay) == (1e-8, decay)
    assert wrapper.clip_grad == (clip and {'max_norm': clip})
    assert 'ema' not in cfg.default_hooks
    assert ('sync_buffers' in cfg.default_hooks) == (name in FCVIT), 'DAT has no batch norm'


@pytest.mark.parametrize(
    ('name', 'epochs', 'warmup', 'rates'),
    [
        ('dat_pp_tiny', 300, 20, (5e-7, 5e-4, 5e-6)),
        ('dat_pp_base', 300, 20, (5e-7, 5e-4, 5e-6)),
        ('dat_pp_base_384', 30, 0, (2e-8, 2e-5, 2e-7)),
        ('dat_small', 300, 20, (5e-7, 5e-4, 5e-6)),
        ('dat_base', 300, 50, (5e-7, 4e-4, 5e-6)),
        ('dat_base_384', 30, 0, (5e-7, 2e-6, 1e-7)),
    ],
)
def test_learning_rates_of_dat(name, epochs, warmup, rates):
    """Those of timm's scheduler, stepped after every iteration with its index."""
    cfg, length = load(name), 3
    start, lr, end = rates
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    timm = CosineLRScheduler(
        optimizer, epochs * length, end, warmup_lr_init=start, warmup_t=warmup * length, t_in_epochs=False
    )
    expected = [timm._get_lr(step)[0] for step in [0, *range(epochs * length - 1)]]
    assert (cfg.train_cfg.max_epochs, cfg.optim_wrapper.optimizer.lr) == (epochs, lr)
    assert learning_rates(cfg, length) == pytest.approx(expected)


def test_learning_rates_of_fcvit():
    """Those of timm's scheduler, stepped after every epoch: 300 epochs and 10 of cooldown."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    timm = CosineLRScheduler(optimizer, 300, 1e-6, warmup_lr_init=1e-6, warmup_t=5)
    expected = [timm._get_lr(epoch)[0] for epoch in range(310)]
    for name in FCVIT:
        assert learning_rates(load(name)) == pytest.approx(expected)


def learning_rates(cfg, epoch_length=None):
    """The rate of every iteration with an ``epoch_length``, else of every epoch."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    settings = dict(cfg.param_scheduler, end=cfg.train_cfg.max_epochs)
    assert settings['convert_to_iter_based'] == (epoch_length is not None)
    defaults = {'optimizer': OptimWrapper(optimizer), 'epoch_length': epoch_length}
    scheduler = PARAM_SCHEDULERS.build(settings, default_args=defaults)
    found = []
    for _ in range(cfg.train_cfg.max_epochs * (epoch_length or 1)):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize('name', [*FCVIT, *DAT])
def test_augmentation(name):
    cfg, side = load(name), 384 if name.endswith('384') else 224
    choices = [step.get('transforms', [[step]]) for step in cfg.train_dataloader.dataset.pipeline]
    assert [step[0][0].type for step in choices] == [
        *('LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment', 'RandomErasing', 'PackInputs')
    ]
    _, crops, flips, policies, erasing, _ = choices
    names = ['bilinear', 'bicubic'] if name in FCVIT else ['bicubic']
    assert [crop.interpolation for (crop,) in crops] == names
    assert [policy.hparams.interpolation for (policy,) in policies] == names
    for (crop,) in crops:
        crop = TRANSFORMS.build(crop)
        assert (crop.scale, crop.crop_ratio_range, crop.aspect_ratio_range) == ((side, side), (0.08, 1), (3 / 4, 4 / 3))
        assert crop.backend == 'pillow'
    for (policy,) in policies:
        assert (policy.policies, policy.num_policies) == ('timm_increasing', 2)
        assert (policy.magnitude_level, policy.total_level, policy.magnitude_std) == (9, 10, 0.5)
    assert flips[0][0].prob == 0.5
    assert (erasing[0][0].erase_prob, erasing[0][0].mode) == (0.25, 'rand')
    augment = MODELS.build(cfg.model | {'backbone': torch.nn.Identity(), 'head': None}).data_preprocessor.batch_augments
    chosen = [(type(step).__name__, step.alpha) for step in augment.augments]
    assert (chosen, augment.probs) == ([('Mixup', 0.8), ('CutMix', 1.0)], None), 'None is: equally often'

    with photo() as path:
        packed = run(cfg.train_dataloader.dataset.pipeline, path)
    assert packed['inputs'].shape == (3, side, side)


def run(pipeline, path):
    return Compose([TRANSFORMS.build(step) for step in pipeline])({'img_path': str(path), 'gt_label': 1})


def published_transform(name):
    """What the trainers of the two families evaluate: timm's transforms, and torchvision's in the style of Swin."""
    if name in FCVIT:
        crop_pct = 0.9 if name in ('fcvit_tiny', 'fcvit_b12') else 0.95
        steps = create_transform(224, interpolation='bicubic', crop_pct=crop_pct).transforms
        return TorchvisionCompose([step for step in steps[:2] if not isinstance(step, MaybeToTensor)] + [PILToTensor()])
    size, crop = {'dat_pp_base_384': (384, 384), 'dat_base_384': (438, 384)}.get(name, (256, 224))
    return TorchvisionCompose([Resize((size, size), InterpolationMode.BICUBIC), CenterCrop(crop), PILToTensor()])


@pytest.mark.parametrize('name', [*FCVIT, *DAT])
@pytest.mark.parametrize('is_upright', [False, True])
def test_evaluation(name, is_upright, tmp_path):
    cfg = load(name)
    assert (cfg.test_evaluator.type, cfg.test_evaluator.topk) == ('Accuracy', (1, 5))
    assert cfg.data_preprocessor['mean'] == [123.675, 116.28, 103.53]
    assert cfg.data_preprocessor['std'] == [58.395, 57.12, 57.375]
    with photo() as path:
        image = Image.open(path).convert('RGB')
    if is_upright:
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(tmp_path / 'image.png')
    expected = published_transform(name)(image)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        packed = run(loader.dataset.pipeline, tmp_path / 'image.png')
        found = packed['inputs'].flip(0)  # BGR
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('fcvit_tiny', 4_784_752),
        ('fcvit_b12', 14_701_832),
        ('fcvit_b24', 26_960_232),
        ('fcvit_b48', 51_477_032),
        ('dat_pp_tiny', 23_962_876),
        ('dat_pp_small', 53_127_366),
        ('dat_pp_base', 93_690_640),
        ('dat_pp_base_384', 93_690_640),
        ('dat_tiny', 28_319_138),
        ('dat_small', 49_700_402),
        ('dat_base', 87_881_632),
        ('dat_base_384', 88_178_272),
    ],
)
def test_parameter_counts_are_those_of_the_official_code(name, count):
    assert sum(parameter.numel() for parameter in build(name).parameters()) == count


@pytest.mark.parametrize(
    ('name', 'free'),
    [
        ('fcvit_tiny', set()),
        ('dat_pp_tiny', {'attn.rpe_table'}),
        ('dat_tiny', {'attn.rpe_table', 'attn.relative_position_bias_table'}),
        ('dat_base_384', {'attn.rpe_table', 'attn.relative_position_bias_table'}),
    ],
)
def test_weight_decay(name, free):
    """Vectors have none, nor tables of position biases but those of neighbourhoods."""
    model, wrapper_cfg = build(name), load(name).optim_wrapper
    wrapper_cfg.update(type='OptimWrapper')
    del wrapper_cfg['dtype'], wrapper_cfg['loss_scale']
    groups = build_optim_wrapper(model, wrapper_cfg).optimizer.param_groups
    decays = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    assert set(decays.values()) == {0.0, wrapper_cfg.optimizer.weight_decay}
    found = {
        re.sub(r'.*stages\.\d\.\d+\.|\.weight$', '', parameter_name)
        for parameter_name, parameter in model.named_parameters()
        if parameter.ndim > 1 and decays[id(parameter)] == 0
    }
    assert found == free
    assert all(decays[id(parameter)] == 0 for parameter in model.parameters() if parameter.ndim == 1)
    neighbourhoods = [parameter for key, parameter in model.named_parameters() if key.endswith('.rpb')]
    assert bool(neighbourhoods) == (name == 'dat_pp_tiny')
    assert all(decays[id(parameter)] == 0.05 for parameter in neighbourhoods)


@pytest.fixture
def tiny(tmp_path):
    """Loader of a config with the smallest network and two photographs as ImageNet."""
    for split in ('train', 'val'):
        (tmp_path / 'data' / split).mkdir(parents=True)
        (tmp_path / 'data' / 'meta').mkdir(exist_ok=True)
        for name in PHOTOS:
            with photo(name) as path:
                shutil.copy(str(path), tmp_path / 'data' / split)
        lines = [f'{name} {label}' for name, label in PHOTOS.items()] * 2
        (tmp_path / 'data' / 'meta' / f'{split}.txt').write_text('\n'.join(lines))

    def make(name):
        cfg = load_config(CONFIGS / f'{name}.py', work_dir=str(tmp_path / 'work'))
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(batch_size=2, num_workers=0)
            loader.dataset.data_root = str(tmp_path / 'data')
        for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline):
            pipeline.insert(-1, {'type': 'Resize', 'scale': (64, 64)})
        return cfg

    return make


V1_NANO = {
    'embed_dims': (32, 64, 96, 128),
    'blocks': ('LS', 'LS', 'LD', 'LD'),
    'num_heads': (2, 4, 6, 8),
    'num_groups': (1, 2, 3, 4),
    'offset_kernels': (9, 7, 5, 3),
    'offset_strides': (8, 4, 1, 1),
    'overlap_patches': False,
    'local_perception': False,
    'conv_ffn': False,
    'offset_range': 2.0,
    'reference_points': 'Hk',
}


@pytest.mark.parametrize(
    ('name', 'arch', 'width'),
    [('fcvit_tiny', 'nano', 96), ('dat_pp_tiny', 'nano', 128), ('dat_pp_base_384', 'nano', 128)]
    + [('dat_tiny', V1_NANO, 128)],
)
def test_toy_training_reaches_every_parameter(name, arch, width, tiny):
    cfg = tiny(name)
    cfg.model.backbone.update(arch=arch, drop_path_rate=0.0)
    cfg.model.head.in_channels = width
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler.update(warmup=1, cooldown=0)
    cfg.auto_scale_lr.base_batch_size = 2  # else steps are smaller than float32 can see
    # Without decay, every parameter changes only by its gradient.
    cfg.optim_wrapper.optimizer.update(lr=1e-2, weight_decay=0.0)
    cfg.load_from = None
    runner = build_runner(cfg)
    before = {key: value.clone() for key, value in runner.model.named_parameters()}
    runner.train()
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    unchanged = [key for key, value in runner.model.named_parameters() if (value == before[key]).all()]
    assert unchanged == []
    assert 'val/accuracy/top1' in runner.message_hub.log_scalars


@pytest.mark.parametrize(
    ('name', 'start'),
    [('dat_pp_base_384', 'dat_pp_base/epoch_300.pth'), ('dat_base_384', 'dat_base/epoch_300_384px.pth')],
)
def test_finetuning_without_its_initial_weights(name, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(CONFIGS / f'{name}.py')
    with pytest.raises(UsageError, match=rf"checkpoint 'work_dirs/{re.escape(start)}' does not exist"):
        apply_train_options(cfg)


@pytest.fixture
def at_224(tiny, tmp_path):
    """Loader of a config for 384 pixels that starts from a small network of the config for 224 pixels."""

    def make(name, arch):
        models = [tiny(config) for config in (name, name.removesuffix('_384'))]
        for cfg in models:
            cfg.model.backbone.arch = arch
            cfg.model.head.in_channels = 128
        large, small = models
        weights = MODELS.build(small.model).state_dict()
        large.load_from = str(tmp_path / 'small.pth')
        torch.save({'model': mmdefocus_to_official(weights), 'epoch': 299}, large.load_from)
        large.optim_wrapper.optimizer.lr = 0.0
        large.train_cfg.max_epochs = 1
        return large, weights

    return make


def test_finetuning_of_dat_pp_takes_all_weights_as_they_are(at_224):
    cfg, weights = at_224('dat_pp_base_384', 'nano')
    runner = build_runner(cfg)
    runner.train()
    found = runner.model.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_finetuning_of_dat_names_the_tables_that_it_does_not_take(at_224, tmp_path):
    cfg, weights = at_224('dat_base_384', V1_NANO)
    runner = build_runner(cfg)
    runner.train()
    found = runner.model.state_dict()
    other = {key.rpartition('attn.')[2] for key, value in weights.items() if not torch.equal(found[key], value)}
    buffers = {'relative_position_index', 'attn_mask'}
    assert other == {'relative_position_bias_table', 'rpe_table.weight', *buffers}
    (log,) = tmp_path.glob('work/*/*.log')
    assert re.search(r'WARNING .*fits in part: .*img_size=384.* got weights of .*img_size=224', log.read_text())
