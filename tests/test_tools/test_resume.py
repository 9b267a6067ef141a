"""Trainings that are interrupted and resumed, through the tool."""

import itertools
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, error_of
from PIL import Image

from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent
GOLDEN = HERE.parent / 'golden'
numbers = itertools.count()
# AdamW, whose moments have the shapes of the parameters; the fused implementation does not check them.
SETTINGS = """
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.01, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2),
    dict(type='MultiStepLR', milestones=[3], by_epoch=True, end=4),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, end=4),
]
train_cfg = dict(max_epochs=4)
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Two images of each of three classes, the config, and in ``whole`` a training of four epochs with it."""
    root = tmp_path_factory.mktemp('resume')
    for value, name in zip((250, 20, 120), ('bright', 'dark', 'red'), strict=True):
        folder = root / 'data' / 'folders' / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((40, 40, 3), value + number, np.uint8)).save(folder / f'{number}.png')
    (root / 'config.py').write_text(f'_base_ = {str(HERE / "toy_classifier.py")!r}\n{SETTINGS}')
    return root


@pytest.fixture(scope='module')
def train(root) -> Callable[..., None]:
    """Run tools/train.py in ``root`` with values of the config."""

    def train(work_dir: str, *words: str | Path, config: Path = Path('config.py'), **options: object) -> None:
        settings = [f'{key}={value}' for key, value in options.items()]
        # MMEngine keeps state under this name.
        settings.append(f'experiment_name=resume_{next(numbers)}')
        arguments = [str(config), '--work-dir', work_dir, *map(str, words), '--cfg-options', *settings]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setattr(sys, 'argv', ['train.py', *arguments])
            runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')

    return train


@pytest.fixture(scope='module')
def whole(root, train) -> Path:
    train('whole', **{'default_hooks.checkpoint.save_best': 'accuracy/top1'})
    return root / 'whole'


@pytest.fixture
def interrupted(root, whole) -> Path:
    """A copy of the training's directory after two epochs; ``last_checkpoint`` names the original's file."""
    work_dir = root / f'copy_{next(numbers)}'
    work_dir.mkdir()
    for epoch in (1, 2):
        shutil.copy(whole / f'epoch_{epoch}.pth', work_dir)
    (work_dir / 'last_checkpoint').write_text(str(whole / 'epoch_2.pth'))
    return work_dir


@pytest.fixture
def refused(train, capsys) -> Callable[..., str]:
    """Run a training that ends with status 2, and return the message."""
    return partial(error_of, capsys, train)


def assert_equal_end(work_dir: Path, whole: Path) -> None:
    states = [read_checkpoint(folder / 'epoch_4.pth')['state_dict'] for folder in (work_dir, whole)]
    assert states[0].keys() == states[1].keys()
    torch.testing.assert_close(states[0], states[1])


def test_a_lost_file_last_checkpoint(train, whole, interrupted, capsys):
    (interrupted / 'last_checkpoint').unlink()
    first = (interrupted / 'epoch_1.pth').read_bytes()
    train(interrupted.name, '--resume')
    assert 'resumed epoch: 2, iter: 4' in capsys.readouterr().out
    assert (interrupted / 'epoch_1.pth').read_bytes() == first
    assert_equal_end(interrupted, whole)


def test_a_copied_directory_goes_on_from_its_own_checkpoint(train, whole, interrupted, capsys):
    (interrupted / 'last_checkpoint').write_text(str(whole / 'epoch_4.pth'))
    train(interrupted.name, '--resume')
    printed = capsys.readouterr().out
    assert f'Load checkpoint from {interrupted.name}/epoch_2.pth' in printed
    assert 'resumed epoch: 2, iter: 4' in printed


@pytest.mark.parametrize('has_best', [True, False])
def test_a_copied_directory_leaves_the_best_checkpoint_of_the_original(train, whole, interrupted, has_best):
    (best,) = whole.glob('best_*.pth')
    path = interrupted / 'epoch_2.pth'
    checkpoint = read_checkpoint(path)
    assert Path(checkpoint['message_hub']['runtime_info']['best_ckpt']).name.startswith('best_')
    # Any accuracy is better than that.
    checkpoint['message_hub']['runtime_info'].update(best_ckpt=str(best), best_score=-1.0)
    torch.save(checkpoint, path)
    if has_best:
        shutil.copy(best, interrupted)
    train(interrupted.name, '--resume', **{'default_hooks.checkpoint.save_best': 'accuracy/top1'})
    assert best.is_file()
    assert len(list(interrupted.glob('best_*.pth'))) == 1


def test_a_truncated_checkpoint_is_passed_over(train, whole, interrupted, capsys):
    newest = interrupted / 'epoch_2.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(interrupted.name, '--resume')
    printed = capsys.readouterr().out
    assert f'Skipped in the search for a checkpoint: {interrupted.name}/epoch_2.pth is truncated or damaged' in printed
    assert 'resumed epoch: 1, iter: 2' in printed
    assert_equal_end(interrupted, whole)


def test_checkpoints_none_of_which_is_of_use_are_no_reason_to_start_anew(refused, interrupted, whole):
    (interrupted / 'epoch_1.pth').unlink()
    (interrupted / 'epoch_2.pth').write_bytes(b'')
    (best,) = whole.glob('best_*.pth')
    shutil.copy(best, interrupted / 'best.pth')
    message = refused(interrupted.name, '--resume')
    assert f'{interrupted.name} has checkpoints, but none of them can be resumed' in message
    assert 'epoch_2.pth is empty, expected' in message
    assert (
        'best.pth has no optimizer. Put a complete one there, or start a new training in another work directory'
        in message
    )
    assert not (interrupted / 'epoch_3.pth').exists()
    assert f"'{best}' has no optimizer and cannot be resumed" in refused('other', '--resume', best)


def test_files_of_other_programs_are_not_resumed(train, whole, interrupted, capsys):
    shutil.copy(GOLDEN / 'cls_rope_official_cls.pth', interrupted / 'epoch_9.pth')
    torch.save({'state_dict': {}, 'meta': {}}, interrupted / 'published.pth')
    train(interrupted.name, '--resume')
    assert 'resumed epoch: 2, iter: 4' in capsys.readouterr().out
    for path in interrupted.glob('epoch_[1-4].pth'):
        path.unlink()
    train(interrupted.name, '--resume', **{'train_cfg.max_epochs': 1})
    assert 'Epoch(train) [1][1/2]' in capsys.readouterr().out


def test_the_setting_resume_of_a_config_is_the_option(train, interrupted, capsys):
    (interrupted / 'last_checkpoint').unlink()
    train(interrupted.name, resume=True)
    assert 'resumed epoch: 2, iter: 4' in capsys.readouterr().out


def test_checkpoints_of_another_directory_of_the_hook(train, interrupted, root, capsys):
    shutil.copytree(interrupted, root / 'elsewhere' / interrupted.name)
    for path in interrupted.iterdir():
        path.unlink()
    train(interrupted.name, '--resume', **{'default_hooks.checkpoint.out_dir': 'elsewhere'})
    assert f'Load checkpoint from elsewhere/{interrupted.name}/epoch_2.pth' in capsys.readouterr().out
    assert (root / 'elsewhere' / interrupted.name / 'epoch_4.pth').is_file()


@pytest.mark.parametrize(
    ('setting', 'other', 'expected'),
    [
        ('', 'model = dict(head=dict(num_classes=5))\n', r'the model: 2 of a different shape \(head\.fc\.'),
        ('', 'model = dict(backbone=dict(depth=34))\n', r'the model: \d+ missing \(backbone\.layer1\.2\.'),
        ('lr=0.01', 'lr=0.02', r'lr of the optimiser is 0\.02 in the config and 0\.01 in the checkpoint\n'),
        (
            'weight_decay=0.05',
            'weight_decay=0.1',
            r'weight_decay of the optimiser is 0\.1 in the config and 0\.05 in the checkpoint in 22 of 62 parameter gr',
        ),
        (
            'lr=0.01',
            'lr=0.01, betas=(0.9, 0.99)',
            r'betas of the optimiser is \(0\.9, 0\.99\) in the config and \(0\.9, 0\.999\) in the checkpoint',
        ),
        (
            "type='AdamW', lr=0.01",
            "type='SGD', lr=0.01",
            'optimiser of the config has dampening, momentum, nesterov, that of the checkpoint has amsgrad, betas, ',
        ),
        ("type='AdamW'", "type='Adam'", 'decoupled_weight_decay of the optimiser is False in the config and True in'),
        (
            'paramwise_cfg=dict(norm_decay_mult=0.0),',
            '',
            'has 62 parameters in 1 groups in the config and 62 parameters in',
        ),
        ('end=2', 'end=3', r'param_scheduler\.0\.end is 3 in the config and 2 in the checkpoint; to train longer with'),
        ('[3]', '[2]', r'param_scheduler\.1\.milestones is \[2\] in the config and \[3\] in the checkpoint\n'),
        ('T_max=4', 'T_max=6', r'param_scheduler\.2\.T_max is 6 in the config and 4 in the checkpoint\n'),
        (
            "type='CosineAnnealingLR', T_max=4",
            "type='ExponentialLR', gamma=0.9",
            r'param_scheduler\.2 is of the type ExponentialLR in the config and of a different one in the checkpoint\n',
        ),
        ('train_cfg', 'param_scheduler = []\ntrain_cfg', 'has 0 schedules in the config and 3 in the checkpoint'),
    ],
)
def test_other_settings_are_refused(refused, root, interrupted, setting, other, expected):
    text = (root / 'config.py').read_text()
    assert setting in text
    config = root / f'other_{interrupted.name}.py'
    config.write_text(text.replace(setting, other) if setting else text + other)
    message = refused(interrupted.name, '--resume', config=config)
    checkpoint = f'{interrupted.name}/epoch_2.pth'
    assert f'{checkpoint} comes from a training with different settings:\n  ' in message
    assert re.search(expected, message), message
    assert 'Restore the settings to resume it, or start a new training from its weights: without --resume' in message
    assert f'with load_from={checkpoint} and another --work-dir' in message
    assert not (interrupted / 'epoch_3.pth').exists()


def test_other_classes_are_refused(refused, root, interrupted):
    shutil.copytree(root / 'data' / 'folders', root / 'renamed', dirs_exist_ok=True)
    if (root / 'renamed' / 'red').exists():
        (root / 'renamed' / 'red').rename(root / 'renamed' / 'crimson')
    prefixes = {f'{split}_dataloader.dataset.data_prefix': 'renamed' for split in ('train', 'val')}
    message = refused(interrupted.name, '--resume', **prefixes)
    assert (
        'the checkpoint and the training set have different classes: the checkpoint has 3 classes (bright, dark, red)'
        in message
    )


def test_a_longer_training_with_the_schedules_as_they_were(train, interrupted):
    train(interrupted.name, '--resume', **{'train_cfg.max_epochs': 5, 'optim_wrapper.optimizer.fused': False})
    assert (interrupted / 'epoch_5.pth').is_file()


def test_what_mmengine_changes_itself_is_not_another_setting(root, train, capsys):
    """The average of the weights, and a learning rate that is scaled at every start."""
    config = root / 'scaled.py'
    hooks = "custom_hooks = [dict(type='EMAHook')]\nauto_scale_lr = dict(base_batch_size=12, enable=True)\n"
    config.write_text((root / 'config.py').read_text() + hooks)
    train('scaled', config=config, **{'train_cfg.max_epochs': 1})
    train('scaled', '--resume', config=config, **{'train_cfg.max_epochs': 2})
    assert 'resumed epoch: 1, iter: 2' in capsys.readouterr().out
