"""Trainings that are resumed with another grouping of the parameters than their checkpoint has."""

import itertools
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, error_of
from PIL import Image

from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent
numbers = itertools.count()
MERGED, STOCK = 'DefocusOptimWrapperConstructor', 'DefaultOptimWrapperConstructor'
MERGED_DECAY, STOCK_DECAY = 'DefocusLayerDecayOptimWrapperConstructor', 'LearningRateDecayOptimWrapperConstructor'
# Schedules that store a value per group, one of them in terms of the last value.
CONFIG = f"""
_base_ = {str(HERE / 'toy_classifier.py')!r}
custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.models', 'mmdefocus.engine'])
model = dict(
    backbone=dict(_delete_=True, type='DefocusViT', arch='nano', img_size=32, patch_size=16, out_type='raw'),
    neck=None,
    head=dict(_delete_=True, type='DefocusClsHead', num_classes=3, in_channels=96),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.01, weight_decay=0.05),
    constructor='{MERGED}',
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys={{'layers.2.': dict(lr_mult=0.5)}}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2),
    dict(type='MultiStepLR', milestones=[3], by_epoch=True, end=4),
    dict(type='CosineAnnealingLR', T_max=4, eta_min=1e-4, by_epoch=True, end=4),
]
train_cfg = dict(max_epochs=4, val_interval=4)
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two images of each of three classes, and the config."""
    root = tmp_path_factory.mktemp('groups')
    for value, name in zip((250, 20, 120), ('bright', 'dark', 'red'), strict=True):
        folder = root / 'data' / 'folders' / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((40, 40, 3), value + number, np.uint8)).save(folder / f'{number}.png')
    (root / 'config.py').write_text(CONFIG)
    return root


@pytest.fixture(scope='module')
def train(root):
    """Train with tools/train.py in ``root``, with another constructor and other options."""

    def train(work_dir, constructor, *words, **options):
        settings = {'optim_wrapper.constructor': constructor, 'experiment_name': f'groups_{next(numbers)}', **options}
        if constructor in (MERGED_DECAY, STOCK_DECAY):
            settings['optim_wrapper.paramwise_cfg.layer_decay_rate'] = 0.75
        arguments = ['--work-dir', work_dir, *words, '--cfg-options', *(f'{k}={v}' for k, v in settings.items())]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setattr(sys, 'argv', ['train.py', 'config.py', *arguments])
            runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')

    return train


@pytest.fixture(scope='module')
def whole(root, train):
    """Make a training of four epochs with a constructor, once."""

    def whole(constructor):
        if not (root / constructor).exists():
            train(constructor, constructor)
        return root / constructor

    return whole


@pytest.fixture
def interrupted(root, whole):
    """Copy the checkpoint after two epochs of such a training into a directory of its own."""

    def interrupted(constructor):
        work_dir = root / f'copy_{next(numbers)}'
        work_dir.mkdir()
        shutil.copy(whole(constructor) / 'epoch_2.pth', work_dir)
        return work_dir

    return interrupted


def state_by_name(checkpoint, names):
    """State and settings of every parameter; ``names`` are those of the model, in the order of groups without names."""
    groups, state = checkpoint['optimizer']['param_groups'], checkpoint['optimizer']['state']
    in_order = iter(names)
    return {
        name: (state[number], {key: group[key] for key in ('lr', 'initial_lr', 'weight_decay', 'betas', 'eps')})
        for group in groups
        for number, name in zip(group['params'], group.get('param_names', in_order), strict=False)
    }


@pytest.mark.parametrize(
    ('before', 'after'), [(STOCK, MERGED), (MERGED, STOCK), (STOCK_DECAY, MERGED_DECAY), (MERGED_DECAY, STOCK_DECAY)]
)
def test_resumed_with_other_groups_equals_the_uninterrupted_training(train, whole, interrupted, before, after, capsys):
    work_dir = interrupted(before)
    train(work_dir.name, after, '--resume')
    assert 'Converted the saved optimiser from' in capsys.readouterr().out
    ends = [read_checkpoint(folder / 'epoch_4.pth') for folder in (work_dir, whole(before), whole(after))]
    torch.testing.assert_close(ends[0]['state_dict'], ends[1]['state_dict'], rtol=0, atol=0)
    names = list(ends[0]['state_dict'])
    states = [state_by_name(end, names) for end in ends]
    assert states[0].keys() == states[1].keys() == set(names)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert ends[0]['param_schedulers'] == ends[2]['param_schedulers']
    sizes = [[len(group['params']) for group in end['optimizer']['param_groups']] for end in ends]
    assert sizes[0] == sizes[2] != sizes[1]


def test_other_settings_are_still_refused(train, interrupted, capsys):
    work_dir = interrupted(STOCK)
    message = error_of(capsys, train, work_dir.name, MERGED, '--resume', **{'optim_wrapper.optimizer.lr': 0.02})
    assert 'lr of the optimiser is 0.02 in the config and 0.01 in the checkpoint\n' in message


def test_settings_that_merging_would_lose_are_refused(train, interrupted, capsys):
    work_dir = interrupted(STOCK)
    checkpoint = read_checkpoint(work_dir / 'epoch_2.pth')
    checkpoint['optimizer']['param_groups'][3]['lr'] = 0.125
    torch.save(checkpoint, work_dir / 'epoch_2.pth')
    message = error_of(capsys, train, work_dir.name, MERGED, '--resume')
    assert 'have one lr in the config, but ' in message
    assert ' and 0.125 in the checkpoint; if no setting has changed, ' in message
    assert 'optim_wrapper.constructor=DefaultOptimWrapperConstructor (with layer_decay_rate: ' in message
    train(work_dir.name, STOCK, '--resume', **{'train_cfg.max_epochs': 3})
    assert (work_dir / 'epoch_3.pth').is_file()
