"""Trainings that end with a captured step, and its replay, for the tests of both."""

import itertools
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, run
from PIL import Image

from mmdefocus.engine.step_capture import read_capture

HERE = Path(__file__).parent
numbers = itertools.count()
CLASSIFIER, DETECTOR, DINO = 'toy_image_folder.py', 'toy_detector.py', 'toy_dino.py'
BASE = """
custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine', 'poison'])
default_hooks = dict(finite_loss=dict(type='DefocusFiniteLossHook'))
"""
NECK = """
model = dict(neck=dict(type='PoisonNeck', fault='{}'))
custom_hooks = [dict(type='PoisonHook', iteration=4)]
"""
WEIGHT = "custom_hooks = [dict(type='PoisonHook', iteration=1, weight='{}', value=float('{}'))]\n"
MIXED = "optim_wrapper = dict(type='DefocusAmpOptimWrapper')\n"
MIXUP = "model.update(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))\n"


def make_images(root: Path) -> Path:
    """Write six training images of each of two classes, one of them named bad."""
    for split, name in itertools.product(('train', 'val'), ('bright', 'dark')):
        (root / split / name).mkdir(parents=True)
        for number in range(6):
            file = 'bad' if (split, name, number) == ('train', 'dark', 3) else str(number)
            pixels = np.full((40, 40, 3), 20 * number + 100 * (name == 'bright'), np.uint8)
            Image.fromarray(pixels).save(root / split / name / f'{file}.png')
    return root


def tool(name: str, *words: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, words)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')


def train(root: Path, toy: str, settings: str, **options: object) -> tuple[str, Path]:
    """Train until the error; return its message and the captured step."""
    number = next(numbers)
    config, work = root / f'config_{number}.py', root / f'work_{number}'
    config.write_text(f'_base_ = {str(HERE / toy)!r}\n{BASE}{settings}')
    words = [f'{key}={value}' for key, value in options.items()]
    words += [f'experiment_name=replay_{number}', f'data_root={root}']
    with pytest.raises(RuntimeError) as error:
        tool('train.py', config, '--work-dir', work, '--cfg-options', *words)
    (file,) = (work / 'non_finite').iterdir()
    return str(error.value), file


def replay(capsys: pytest.CaptureFixture, file: Path, *words: str | Path) -> str:
    capsys.readouterr()
    tool('replay.py', file, '--import-code', *words)
    return capsys.readouterr().out


def replay_in_new_process(file: Path, *words: str | Path, code: int = 0) -> str:
    """Replay with nothing of the training but the file."""
    environment = ['env', f'PYTHONPATH={HERE}:{os.environ.get("PYTHONPATH", "")}']
    return run(file.parent, *environment, sys.executable, TOOLS / 'replay.py', file, '--import-code', *words, code=code)


def layer_row(printed: str) -> list[str]:
    """Return the cells of the row of the first non-finite value."""
    (row,) = [line for line in printed.splitlines() if line.startswith('| > ')]
    return [cell.strip() for cell in row.strip('|').split('|')]


def rewritten(file: Path, name: str, change: Callable[[dict], None]) -> Path:
    capture = read_capture(file)
    change(capture)
    torch.save(capture, file.with_name(name))
    return file.with_name(name)
