"""Trainings with a loss or a gradient that is not finite, through the tool, and the replay of the captured step."""

import itertools
import json
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, error_of, run
from PIL import Image

HERE = Path(__file__).parent
numbers = itertools.count()
BASE = "custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine', 'poison'])\n"
NECK = "model = dict(neck=dict(type='PoisonNeck', fault='{}'))\ncustom_hooks = [dict(type='PoisonHook', iteration=4)]\n"


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """A directory with six training images of each of two classes, one of them named bad, and toy digits for COCO."""
    root = tmp_path_factory.mktemp('replay')
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


train_classifier: Callable[..., tuple[str, Path]] = partial(train, toy='toy_image_folder.py')


def test_try(root, capsys):
    for fault in ('log', 'exp', 'root', 'half'):
        message, file = train_classifier(root, settings=NECK.format(fault))
        print = sys.__stderr__.write
        print(message + '\n')
        print(replay(capsys, file))
