"""Resumed trainings equal uninterrupted ones at tolerance 0.

The grid is {classification, detection} × {1, 2 processes} × {by epochs, by iterations, in the middle of an epoch} ×
{average of the weights} × {drop path} × {gradient accumulation}, and a training in mixed precision. With
``drop_path``, the rate of a training by epochs changes with its schedule; by iterations it is constant, because the
schedule counts epochs.
"""

import itertools
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import error_of, run
from PIL import Image
from resume_grid import GRID, Cell, assert_equal_training, batches_of, differences, train
from resume_pair import ALIKE, ALIKE_OPTIONS, of_two_processes

from mmdefocus.engine import amp_optim_wrapper
from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent


@pytest.fixture(scope='module')
def root(tmp_path_factory, digits_coco) -> Path:
    """Four images of each of three classes in ``images``, and four images for detection in ``digits``."""
    root = tmp_path_factory.mktemp('grid')
    random = np.random.default_rng(0)
    for number, name in itertools.product(range(4), ('bright', 'dark', 'red')):
        folder = root / 'images' / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f'{number}.png')
    (root / 'digits').symlink_to(digits_coco)
    return root


@pytest.mark.parametrize('cell', GRID, ids=lambda cell: cell.name)
def test_one_process(root, cell):
    """The training that is not interrupted has workers, or else the resumed one has them."""
    config = cell.write_config(root)
    whole = train(root, config, f'{cell.name}_whole', train_dataloader__num_workers=2 if cell.by_epoch else 0)
    for name, iteration in (('epoch_1', 4), ('iter_5', 5)) if cell.by_epoch else (('iter_5', 5),):
        workers = 0 if cell.by_epoch else 2
        words = '--resume', whole / f'{name}.pth'
        resumed = train(root, config, f'{cell.name}_{name}', *words, train_dataloader__num_workers=workers)
        assert_equal_training(resumed, whole, iteration)


def test_mixed_precision(root, monkeypatch):
    """Resumed in the middle of accumulated gradients; its checkpoints also resume in float32, and those of float32."""
    monkeypatch.setattr(amp_optim_wrapper, 'cpu_has_bfloat16', lambda: True)  # others are slow at it
    cell = Cell('detection', ema=True, drop_path=True, accumulation=True)
    config = cell.write_config(root)
    settings = dict(model__backbone__blocks_in_fp32=False, optim_wrapper__clip_grad={'max_norm': 0.1})
    whole = train(root, config, 'mixed', '--amp', **settings)
    resumed = train(root, config, 'mixed_resumed', '--amp', '--resume', whole / 'iter_5.pth', **settings)
    assert_equal_training(resumed, whole, 5)
    exact = train(root, config, 'mixed_then_exact', '--resume', whole / 'iter_5.pth', **settings)
    again = train(root, config, 'exact_then_mixed', '--amp', '--resume', exact / 'iter_7.pth', **settings)
    states = [read_checkpoint(path / 'iter_8.pth') for path in (whole, exact, again)]
    assert any(differences(states[0]['state_dict'], states[1]['state_dict'])), 'both precisions give the same bits'
    for state in states:
        kept = [
            *state['state_dict'].values(),
            *(value for one in state['optimizer']['state'].values() for value in one.values()),
        ]
        assert {value.dtype for value in kept if value.is_floating_point()} == {torch.float32}
        assert 'loss_scaler' not in state['optimizer']


@pytest.fixture(scope='module')
def pair(root) -> Path:
    """The root after the trainings in two processes."""
    for cell in GRID:
        cell.write_config(root)
    ALIKE.write_config(root, 'alike')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    launcher = ['-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}']
    path = f'PYTHONPATH={HERE}:{os.environ.get("PYTHONPATH", "")}'
    run(root, 'env', path, sys.executable, *launcher, HERE / 'resume_pair.py', root)
    return root


@pytest.mark.parametrize('cell', GRID, ids=lambda cell: cell.name)
def test_two_processes(pair, cell):
    last, checkpoints = of_two_processes(cell)
    for name, iteration in checkpoints.items():
        assert_equal_training(pair / f'pair_{cell.name}_{name}', pair / f'pair_{cell.name}', iteration, last, ranks=2)


@pytest.mark.parametrize(('name', 'iteration'), [('epoch_1', 3), ('iter_4', 4)])
def test_one_process_takes_the_steps_of_two(pair, name, iteration):
    """Equal up to the order of sums, with the same augmentation of every image."""
    whole = pair / 'pair_alike'
    options = {**ALIKE_OPTIONS, 'train_dataloader__batch_size': 4}
    config = pair / 'alike.py'
    resumed = train(pair, config, f'alone_{name}', '--resume', whole / f'{name}.pth', **options)
    both = [batches_of(whole, rank) for rank in range(2)]
    for number, (_, images, pixels) in batches_of(resumed).items():
        assert images == [image for turn in zip(*(one[number][1] for one in both), strict=True) for image in turn]
        assert pixels == pytest.approx(sum(one[number][2] for one in both), rel=1e-12)
    assert [*batches_of(resumed)] == [*range(iteration, 6)]
    for part in ('state_dict', 'ema_state_dict'):
        actual, expected = (read_checkpoint(path / 'iter_6.pth')[part] for path in (resumed, whole))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_other_steps_in_the_middle_of_an_epoch_are_refused(pair, capsys):
    options = {**ALIKE_OPTIONS, 'train_dataloader__batch_size': 2}
    config, checkpoint = pair / 'alike.py', pair / 'pair_alike' / 'iter_4.pth'
    message = error_of(capsys, train, pair, config, 'refused', '--resume', checkpoint, **options)
    assert 'this run has 1 processes with batches of 2, the checkpoint is from the middle of an epoch of 2' in message


def test_gradients_of_two_processes_are_not_saved(pair, capsys):
    cell = Cell('classification', accumulation=True)
    path = pair / f'pair_{cell.name}' / 'iter_4.pth'
    message = error_of(capsys, train, pair, cell.write_config(pair), 'refused', '--resume', path)
    assert f'{path} cannot be resumed exactly: it has no gradients of the 1 batches since the last step' in message
