"""A long training needs no more memory and no more open files than a short one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from commands import TOOLS, run
import sys
from processes import finish, start
from saving_data import make_images

HERE = Path(__file__).parent
CONFIG = f"""
_base_ = {str(HERE / 'toy_saving.py')!r}
custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.engine', 'memory_recorder'])
model = dict(backbone=dict(_delete_=True, type='LeNet5'), head=dict(in_channels=120))
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('memory')
    make_images(root)
    base = HERE / 'toy_saving.py'
    (root / 'config.py').write_text(
        f'_base_ = {str(base)!r}\n'
        "custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.engine', 'memory_recorder'])\n"
        'model = dict(\n'
        "    backbone=dict(_delete_=True, type='mmpretrain.LeNet5'),\n"
        '    head=dict(in_channels=120),\n'
        ')\n'
        'train_dataloader = dict(batch_size=1)\n'
        'val_dataloader = dict(batch_size=6)\n'
        'param_scheduler = []\n'
        "train_cfg = dict(max_epochs=500, val_interval=50)\n"
        'default_hooks = dict(logger=dict(interval=100), checkpoint=dict(interval=10, max_keep_ckpts=2))\n'
    )
    return root


def records(root: Path, name: str, *options: str) -> np.ndarray:
    """Train, and return iteration, resident bytes and open descriptors as rows."""
    words = ['config.py', '--work-dir', name, '--cfg-options', *options]
    finish(start(root, f'{name}.log', *words), root / f'{name}.log')
    return np.array(json.loads((root / name / 'memory.json').read_text()))


def growth(rows: np.ndarray) -> tuple[float, int]:
    """Return the bytes per iteration and the descriptors by which the last third exceeds the second."""
    second, last = np.array_split(rows, 3)[1:]
    iterations = last[:, 0].mean() - second[:, 0].mean()
    return (np.median(last[:, 1]) - np.median(second[:, 1])) / iterations, last[:, 2].max() - second[:, 2].max()
