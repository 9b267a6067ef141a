"""Images for the trainings that are interrupted, and comparison of their results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmdefocus.models.checkpoint import read_checkpoint

CONFIG = Path(__file__).parent / 'toy_saving.py'


def make_images(root: Path, per_class: int = 2) -> None:
    for value, name in zip((250, 20, 120), ('bright', 'dark', 'red'), strict=True):
        folder = root / 'data' / 'folders' / name
        folder.mkdir(parents=True)
        for number in range(per_class):
            Image.fromarray(np.full((40, 40, 3), value + number, np.uint8)).save(folder / f'{number}.png')


def assert_same_training(first: Path, second: Path) -> None:
    """Compare all states of two checkpoints bit for bit."""
    contents = [read_checkpoint(path) for path in (first, second)]
    for name in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        _assert_same(contents[0][name], contents[1][name], name)
    assert all(contents[0]['meta'][name] == contents[1]['meta'][name] for name in ('epoch', 'iter'))


def _assert_same(first: Any, second: Any, name: str) -> None:
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    elif isinstance(first, Mapping):
        assert first.keys() == second.keys(), name
        for key in first:
            _assert_same(first[key], second[key], f'{name}.{key}')
    elif isinstance(first, (list, tuple)):
        for number, pair in enumerate(zip(first, second, strict=True)):
            _assert_same(*pair, f'{name}.{number}')
    else:
        assert first == second, name
