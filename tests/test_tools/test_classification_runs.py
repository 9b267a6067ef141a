"""Classifiers on a folder of images, as a user trains, resumes, tests and uses them; with tiny models."""

import itertools
import json
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS
from mmengine.config import Config
from mmengine.hooks import DistSamplerSeedHook, Hook
from mmengine.runner import Runner
from PIL import Image

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_test_options, apply_train_options
from mmdefocus.apis.runs.runner import build_runner, dump_predictions
from mmdefocus.engine import DefocusEpochSeedHook
from mmdefocus.models.checkpoint import read_checkpoint

CONFIGS = Path(__file__).parents[2] / 'configs' / 'classification'
TOY = Path(__file__).parent / 'toy_image_folder.py'
CLASSES = ('bright', 'dark', 'red')
numbers = itertools.count()


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """Four training and two validation images of each of three classes; their left edges are green."""
    root = tmp_path_factory.mktemp('images')
    random = np.random.default_rng(0)
    means = dict(bright=(220, 220, 220), dark=(30, 30, 30), red=(200, 40, 40))
    for split, count in (('train', 4), ('val', 2)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(means[name], 20, (24, 24, 3)), 0, 255).astype(np.uint8)
                pixels[:, :8] = (0, 255, 0)
                Image.fromarray(pixels).save(root / split / name / f'{number}.png')
    return root


def build(images: Path, work_dir: Path, options: dict | None = None, config: Path = TOY, resume=None) -> Runner:
    cfg = load_config(config, {'data_root': str(images), **(options or {})}, str(work_dir))
    cfg.experiment_name = f'classification_{next(numbers)}'  # MMEngine keeps state under this name
    apply_train_options(cfg, resume=resume)
    return build_runner(cfg)


def train(*arguments, **options) -> Runner:
    runner = build(*arguments, **options)
    runner.train()
    return runner


def weights(work_dir: Path, name: str = 'epoch_2.pth') -> dict[str, torch.Tensor]:
    return read_checkpoint(work_dir / name)['state_dict']


@pytest.fixture(scope='module')
def trained(images, tmp_path_factory) -> Path:
    """A working directory of tools/train.py, where nothing but the place of the data was given."""
    work_dir = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch:
        arguments = ['--work-dir', str(work_dir), '--cfg-options', f'data_root={images}']
        patch.setattr(sys, 'argv', ['train.py', str(TOY), *arguments])
        runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
    return work_dir


def test_the_saved_config_needs_no_training_set(trained, images, tmp_path):
    saved = trained / TOY.name
    shutil.copytree(images / 'val', tmp_path / 'val')
    cfg = load_config(saved, {'data_root': str(tmp_path)}, str(tmp_path / 'work'))
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (3, 3)
    assert tuple(cfg.test_dataloader.dataset.metainfo.classes) == CLASSES
    apply_test_options(cfg, str(trained / 'epoch_2.pth'))
    (scalars,) = trained.glob('*/vis_data/scalars.json')
    last = json.loads(scalars.read_text().splitlines()[-1])
    assert build_runner(cfg).test()['accuracy/top1'] == pytest.approx(last['accuracy/top1'], abs=1e-4)
    assert load_config(tmp_path / 'work' / 'test' / TOY.name).load_from == str(trained / 'epoch_2.pth')
    (tmp_path / 'val' / 'red').rename(tmp_path / 'val' / 'crimson')
    with pytest.raises(ValueError, match='only in the folder crimson; only in the classes red'):
        build_runner(cfg).test()


def test_predictions_have_the_names_of_the_folders(trained, images):
    from mmpretrain import ImageClassificationInferencer

    assert read_checkpoint(trained / 'epoch_2.pth')['meta']['dataset_meta']['classes'] == CLASSES
    inferencer = ImageClassificationInferencer(str(trained / TOY.name), str(trained / 'epoch_2.pth'), device='cpu')
    (result,) = inferencer(str(images / 'val' / 'dark' / '0.png'))
    assert result['pred_scores'].shape == (3,)
    assert result['pred_class'] == CLASSES[result['pred_label']]


def scores(trained: Path, images: Path, work_dir: Path, **options) -> torch.Tensor:
    """Predicted scores (N, K) of the validation images; ``flip`` turns every image around, ``tta`` averages."""
    cfg = load_config(TOY, {'data_root': str(images)}, str(work_dir))
    apply_test_options(cfg, str(trained / 'epoch_2.pth'), tta=options.get('tta', False))
    if options.get('flip'):
        cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=1.0))
    runner = build_runner(cfg)
    dump_predictions(runner, str(work_dir / 'predictions.pkl'))
    runner.test()
    return torch.stack([entry['pred_score'] for entry in pickle.loads((work_dir / 'predictions.pkl').read_bytes())])


def test_augmentation_at_test_time_averages_scores(trained, images, tmp_path):
    plain, flipped = scores(trained, images, tmp_path), scores(trained, images, tmp_path, flip=True)
    assert not torch.allclose(plain, flipped, atol=1e-4), 'the images are not symmetric'
    torch.testing.assert_close(scores(trained, images, tmp_path, tta=True), (plain + flipped) / 2)


# No randomness except for the initial weights and the order of the images; no schedule by iterations.
PLAIN = {
    'train_dataloader.dataset.pipeline': Config.fromfile(TOY).test_pipeline,
    'default_hooks.drop_path': None,
    'param_scheduler': None,
    'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=10.0, momentum=0.9, weight_decay=0.05),
    'train_cfg.max_epochs': 1,
    'train_dataloader.batch_size': 8,
}


@pytest.mark.parametrize(('batches', 'max_norm'), [(2, 1e9), (4, 0.1)])
def test_accumulated_batches_take_the_step_of_a_large_one(images, tmp_path, batches, max_norm):
    """Twelve images in steps of eight and four: the rest at the end is averaged over itself.

    A small ``max_norm`` clips every gradient, a large one none, so that a wrong factor of the gradient shows.
    """
    large = {**PLAIN, 'optim_wrapper.clip_grad.max_norm': max_norm}
    small = {
        **large,
        'train_dataloader.batch_size': 8 // batches,
        'optim_wrapper.accumulative_counts': batches,
    }
    train(images, tmp_path / 'large', large)
    runner = train(images, tmp_path / 'small', small)
    assert runner.iter == 12 * batches // 8
    expected, actual = (weights(tmp_path / name, 'epoch_1.pth') for name in ('large', 'small'))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


# All sources of randomness (order, crops, mixup and cutmix, drop path) and all parts with a state.
RANDOM = {
    'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
    'default_hooks.ema': dict(type='DefocusOptimizerStepEMAHook', momentum=0.1),
    'default_hooks.drop_path': dict(min_rate=0.3, max_rate=0.9, mode='linear'),
}


def resumed(images: Path, tmp_path: Path, options: dict) -> tuple[dict, dict]:
    """Checkpoints after two epochs: of a training without a break, and of one that is resumed after the first."""
    train(images, tmp_path / 'whole', options)
    work_dir = tmp_path / 'resumed'
    work_dir.mkdir()
    shutil.copy(tmp_path / 'whole' / 'epoch_1.pth', work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    runner = train(images, work_dir, options, resume='auto')
    assert runner.iter == 6
    whole, again = (read_checkpoint(folder / 'epoch_2.pth') for folder in (tmp_path / 'whole', work_dir))
    return whole, again


@pytest.mark.parametrize(('seed', 'num_workers'), [(None, 0), (0, 2)])
def test_a_resumed_training_is_equal_to_the_last_bit(images, tmp_path, seed, num_workers):
    options = {**RANDOM, 'randomness.seed': seed, 'train_dataloader.num_workers': num_workers}
    whole, again = resumed(images, tmp_path, options)
    for part in ('state_dict', 'ema_state_dict'):
        assert whole[part].keys() == again[part].keys()
        assert [name for name in whole[part] if not torch.equal(whole[part][name], again[part][name])] == []
    assert whole['param_schedulers'] == again['param_schedulers']
    moments = [checkpoint['optimizer']['state'] for checkpoint in (whole, again)]
    for index in moments[0]:
        for name in ('exp_avg', 'exp_avg_sq'):
            assert torch.equal(moments[0][index][name], moments[1][index][name])


def test_the_sampler_hook_of_mmengine_is_replaced(images, tmp_path):
    """MMEngine's default runtime names it."""
    whole, again = resumed(images, tmp_path, {**RANDOM, 'default_hooks.sampler_seed.type': 'DistSamplerSeedHook'})
    assert torch.equal(whole['state_dict']['head.fc.weight'], again['state_dict']['head.fc.weight'])


def test_a_resumed_training_differs_without_seeds(images, tmp_path, monkeypatch):
    """Else the tests above would show nothing."""
    for name in ('before_train_epoch', 'before_train_iter'):
        monkeypatch.setattr(DefocusEpochSeedHook, name, getattr(DistSamplerSeedHook, name))
    whole, again = resumed(images, tmp_path, RANDOM)
    assert not torch.equal(whole['state_dict']['head.fc.weight'], again['state_dict']['head.fc.weight'])


def test_workers_augment_each_epoch_in_another_way(images, tmp_path):
    """New workers with the seed of the old ones would repeat the first epoch."""
    batches = []

    class Recorder(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            batches.append(data_batch['inputs'])

    runner = build(images, tmp_path, {'train_dataloader.num_workers': 1, 'train_dataloader.sampler.shuffle': False})
    runner.register_hook(Recorder())
    runner.train()
    assert len(batches) == 6
    assert all(not torch.equal(first, second) for first, second in zip(batches[:3], batches[3:], strict=True))


def test_workers_that_stay_draw_the_same_numbers(images, tmp_path):
    for persistent in (True, False):
        options = {'train_dataloader.num_workers': 1, 'train_dataloader.persistent_workers': persistent}
        train(images, tmp_path / str(persistent), {**RANDOM, **options})
    first, second = (weights(tmp_path / str(persistent)) for persistent in (True, False))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


# Settings that make the configs of the base model as small as the toy.
TINY = {
    'model.backbone.arch': dict(_delete_=True, **Config.fromfile(TOY).arch),
    'model.backbone.init_cfg': None,
    'model.head.in_channels': 16,
    'train_dataloader.batch_size': 4,
    'train_cfg.max_epochs': 2,
    'param_scheduler.warmup': 1,
}


def test_a_linear_probe_trains_nothing_but_the_classifier(images, tmp_path):
    options = {
        **TINY,
        'model.backbone.frozen_stages': 2,
        'train_dataloader.dataset.pipeline.1.scale': 32,
        'train_dataloader.num_workers': 0,
        'val_dataloader.dataset.pipeline.1.scale': 36,
        'val_dataloader.dataset.pipeline.2.crop_size': 32,
        'val_dataloader.num_workers': 0,
    }
    runner = train(images, tmp_path, options, CONFIGS / 'defocus_mamba_base_linear_probe.py')
    groups = runner.optim_wrapper.optimizer.param_groups
    assert {name for group in groups for name in group['param_names']} == {'head.fc.weight', 'head.fc.bias'}
    first, last = weights(tmp_path, 'epoch_1.pth'), weights(tmp_path)
    assert {name for name in last if not torch.equal(first[name], last[name])} == {'head.fc.weight', 'head.fc.bias'}
    assert runner.model.head.num_classes == 3


def test_lower_layers_take_smaller_steps(images, tmp_path):
    runner = build(images, tmp_path, TINY, CONFIGS / 'defocus_mamba_base_finetune.py')
    groups = runner.build_optim_wrapper(runner.optim_wrapper).optimizer.param_groups
    lr, decay = runner.cfg.optim_wrapper.optimizer.lr, 0.75
    rates = {name: group['lr'] for group in groups for name in group['param_names']}
    assert rates.keys() == dict(runner.model.named_parameters()).keys()
    expected = {
        'backbone.cls_token': decay**3,
        'backbone.patch_embed.projection.weight': decay**3,
        'backbone.layers.0.mixer.in_proj.weight': decay**2,
        'backbone.layers.1.mixer.A_log': decay,
        'backbone.norm.weight': 1.0,
        'head.fc.weight': 1.0,
        'head.aux_fc.bias': 1.0,
    }
    assert {name: rates[name] / lr for name in expected} == pytest.approx(expected)
    without = {name for group in groups if group['weight_decay'] == 0 for name in group['param_names']}
    parameters = dict(runner.model.named_parameters())
    assert without == {
        name for name in parameters if parameters[name].ndim == 1 or name.endswith(('cls_token', 'A_log'))
    }


def test_published_weights_go_into_the_backbone_alone(images, tmp_path, trained):
    """The head is new even where the checkpoint has as many classes."""
    pretrained = dict(type='Pretrained', checkpoint=str(trained / 'epoch_2.pth'))
    options = {**TINY, 'model.backbone.patch_size': 4, 'model.backbone.init_cfg': pretrained}
    model = build(images, tmp_path, options, CONFIGS / 'defocus_mamba_base_finetune.py').model
    model.init_weights()
    given = weights(trained)
    same = {name for name, value in model.state_dict().items() if torch.equal(value, given[name])}
    assert {name for name in given if name.startswith('backbone.')} <= same
    assert not {'head.fc.weight', 'head.aux_fc.weight'} & same


@pytest.mark.parametrize(
    ('data_root', 'message'),
    [
        ('nowhere', r"image folder '.*nowhere/train' does not exist .*set data_root to"),
        ('{images}/val/dark', r"image folder '.*/val/dark/train' does not exist"),
        ('one', r"'one/train' has only one folder, 'ant'"),
        ('empty', r"'empty/train' has class folders without an image: bee"),
    ],
)
def test_mistakes_in_the_data(images, tmp_path, monkeypatch, data_root, message):
    monkeypatch.chdir(tmp_path)
    for name in ('one/train/ant', 'empty/train/ant', 'empty/train/bee'):
        Path(name).mkdir(parents=True)
    for name in ('one', 'empty'):
        shutil.copy(images / 'val/dark/0.png', Path(name, 'train/ant'))
    with pytest.raises(UsageError, match=message):
        train(Path(data_root.format(images=images)), tmp_path / 'work')


def test_other_classes_in_the_validation_set(images, tmp_path):
    shutil.copytree(images, tmp_path / 'data')
    (tmp_path / 'data/val/red').rename(tmp_path / 'data/val/crimson')
    with pytest.raises(ValueError, match='only in the folder crimson; only in the classes red'):
        train(tmp_path / 'data', tmp_path / 'work')


def test_a_corrupt_image_is_named_in_training(images, tmp_path):
    shutil.copytree(images, tmp_path / 'data')
    (tmp_path / 'data/train/red/2.png').write_bytes(b'nothing')
    with pytest.raises(ValueError, match=r"image file '.*/train/red/2\.png' cannot be decoded"):
        train(tmp_path / 'data', tmp_path / 'work')
