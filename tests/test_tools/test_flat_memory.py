"""A long training needs no more memory and no more open files than a short one."""

import json
from pathlib import Path

import numpy as np
import pytest
from processes import finish, start
from saving_data import CONFIG, make_images

# MMEngine keeps every logged number, 64 bytes per iteration; the smallest tensor takes more than the rest.
ALLOWED_BYTES = 200


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Six images, and a config with six iterations per epoch and a checkpoint every ten epochs."""
    root = tmp_path_factory.mktemp('memory')
    make_images(root)
    (root / 'config.py').write_text(f"""
_base_ = {str(CONFIG)!r}
custom_imports = dict(imports=['mmdefocus.datasets', 'mmdefocus.engine', 'memory_recorder'])
model = dict(backbone=dict(_delete_=True, type='OneConvolution'), head=dict(in_channels=4))
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_epochs=500, val_interval=50)
param_scheduler = []
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(interval=10, max_keep_ckpts=2),
    memory=dict(type='MemoryRecorder'),
)
""")
    return root


def growth(root: Path, name: str, *options: str) -> tuple[float, int]:
    """Train, and return by how much the last third of the iterations exceeds the second: bytes per iteration, files."""
    words = ['config.py', '--work-dir', name, *(['--cfg-options', *options] if options else [])]
    finish(start(root, f'{name}.log', *words), root / f'{name}.log')
    rows = np.array(json.loads((root / name / 'memory.json').read_text()))
    (iterations, resident, files), (later, more, most) = (part.T for part in np.array_split(rows, 3)[1:])
    return (np.median(more) - np.median(resident)) / (later.mean() - iterations.mean()), most.max() - files.max()


def test_three_thousand_iterations(root):
    size, files = growth(root, 'flat')
    assert json.loads((root / 'flat' / 'memory.json').read_text())[-1][0] == 3000
    assert size < ALLOWED_BYTES
    assert files == 0


def test_a_leak_would_be_seen(root):
    size, files = growth(root, 'leaky', 'train_cfg.max_epochs=150', 'default_hooks.leak.type=LeakyHook')
    assert size > 2 * ALLOWED_BYTES
    assert files > 0
