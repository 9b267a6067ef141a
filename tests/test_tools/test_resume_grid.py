"""Resumed trainings equal uninterrupted ones at tolerance 0."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from resume_grid import Cell, assert_equal_training, train

ON_OFF = (False, True)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Four images of each of three classes in ``images``."""
    root = tmp_path_factory.mktemp('grid')
    random = np.random.default_rng(0)
    for number, name in itertools.product(range(4), ('bright', 'dark', 'red')):
        folder = root / 'images' / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / f'{number}.png')
    return root


@pytest.mark.parametrize(('ema', 'drop_path', 'accumulation'), [*itertools.product(ON_OFF, repeat=3)])
def test_a_classifier_by_epochs(root, ema, drop_path, accumulation):
    cell = Cell('classification', True, ema, drop_path, accumulation)
    config = cell.write_config(root)
    whole = train(root, config, f'{cell.name}_whole', train_dataloader__num_workers=2)
    for name, iteration in (('epoch_1', 4), ('iter_5', 5)):
        resumed = train(root, config, f'{cell.name}_{name}', '--resume', whole / f'{name}.pth')
        assert_equal_training(resumed, whole, iteration)


@pytest.mark.parametrize(('ema', 'drop_path', 'accumulation'), [*itertools.product(ON_OFF, repeat=3)])
def test_a_classifier_by_iterations(root, ema, drop_path, accumulation):
    """With ``drop_path``, the rate is constant: its schedule counts epochs."""
    cell = Cell('classification', False, ema, drop_path, accumulation)
    config = cell.write_config(root)
    whole = train(root, config, f'{cell.name}_whole')
    resumed = train(root, config, f'{cell.name}_5', '--resume', whole / 'iter_5.pth', train_dataloader__num_workers=2)
    assert_equal_training(resumed, whole, 5)


DETECTORS = [
    Cell('detection', by_epoch, ema, drop_path, accumulation)
    for by_epoch, ema, drop_path, accumulation in (
        (True, False, False, False),
        (True, True, False, True),
        (True, True, True, False),
        (False, False, True, True),
        (False, True, False, False),
    )
]


@pytest.mark.parametrize('cell', DETECTORS, ids=lambda cell: cell.name)
def test_a_detector(root, digits_coco, cell):
    if not (root / 'digits').exists():
        (root / 'digits').symlink_to(digits_coco)
    config = cell.write_config(root)
    whole = train(root, config, f'{cell.name}_whole', train_dataloader__num_workers=2)
    for name, iteration in (('epoch_1', 4), ('iter_5', 5)) if cell.by_epoch else (('iter_5', 5),):
        resumed = train(root, config, f'{cell.name}_{name}', '--resume', whole / f'{name}.pth')
        assert_equal_training(resumed, whole, iteration)
