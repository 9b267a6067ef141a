"""Trainings of the resume grid, and their comparison; used in one process and in two."""

import json
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from commands import TOOLS
from mmengine.logging import HistoryBuffer

from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent
numbers = count()
# Times, and names that MMEngine and the tests give; mmengine_version holds the current commit of this checkout.
OWN = {'time', 'train/time', 'train/data_time', 'eta'}
OWN |= {'cfg', 'experiment_name', 'last_ckpt', 'mmengine_version'}
BASES = {
    ('classification', False): 'toy_classifier.py',
    ('classification', True): 'toy_image_folder.py',
    ('detection', False): 'toy_detector.py',
    ('detection', True): 'toy_dino.py',
}
CLASSIFICATION = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32, crop_ratio_range=(0.3, 1.0)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
head = dict(loss=dict(_delete_=True, type='CrossEntropyLoss', use_soft=True))
model = dict(head=head, train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
train_dataloader = dict(batch_size=3, dataset=dict(data_root=root, data_prefix='images', pipeline=train_pipeline))
"""
DETECTION = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(48, 48), (64, 64)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=1,
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(data_root=root + '/digits/', pipeline=train_pipeline),
)
"""
COMMON = """
custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine', 'batch_recorder'])
custom_hooks = [dict(type='BatchRecorder'), dict(type='DefocusCheckpointHook', interval=1, by_epoch=False)]
default_hooks = dict(checkpoint=dict(type='DefocusCheckpointHook', interval=1, by_epoch={by_epoch}, max_keep_ckpts=-1))
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05),
    accumulative_counts={counts},
)
val_cfg = val_dataloader = val_evaluator = None
"""
SCHEDULES = {
    True: """
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=6), dict(type='MultiStepLR', milestones=[1], end=2)
]
""",
    False: """
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=8)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=8, by_epoch=False)]
""",
}


@dataclass(frozen=True)
class Cell:
    """Settings of a training of eight iterations, which are two epochs in one process."""

    task: str
    by_epoch: bool = True
    ema: bool = False
    drop_path: bool = False
    accumulation: bool = False

    @property
    def name(self) -> str:
        words = [name for name in ('ema', 'drop_path', 'accumulation') if getattr(self, name)]
        return '_'.join([self.task, 'epochs' if self.by_epoch else 'iterations', *words])

    def write_config(self, root: Path, name: str = '') -> Path:
        """Write the config; with a drop-path schedule it is of a De-focus network, else of a ResNet."""
        text = CLASSIFICATION if self.task == 'classification' else DETECTION
        text += COMMON.format(by_epoch=self.by_epoch, counts=3 if self.accumulation else 1) + SCHEDULES[self.by_epoch]
        hooks = {
            'ema': dict(type='DefocusOptimizerStepEMAHook', momentum=0.1) if self.ema else None,
            'drop_path': dict(type='DefocusScheduledDropPathHook', max_rate=0.5, min_rate=0.2)
            if self.drop_path and self.by_epoch
            else None,
        }
        text += f'default_hooks.update({hooks})\n'
        base = HERE / BASES[self.task, self.drop_path]
        path = root / f'{name or self.name}.py'
        path.write_text(f'_base_ = {str(base)!r}\nroot = {str(root)!r}\n{text}')
        return path


GRID = [
    Cell(task, *settings) for task in ('classification', 'detection') for settings in product((True, False), repeat=4)
]


def train(root: Path, config: Path, work_dir: str, *words: str | Path, **options: object) -> Path:
    """Run tools/train.py in this process with values of the config, and return the working directory."""
    settings = [f'experiment_name={work_dir}_{next(numbers)}']  # MMEngine keeps state under this name
    settings += [f'{key.replace("__", ".")}={value}' for key, value in options.items()]
    arguments = [str(config), '--work-dir', str(root / work_dir), *map(str, words), '--cfg-options', *settings]
    # Every checkpoint holds the config; formatting its text takes longer than the rest of a training of this size.
    unformatted = patch('yapf.yapflib.yapf_api.FormatCode', lambda code, **_: (code, True))
    with patch('sys.argv', ['train.py', *arguments]), unformatted:
        runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
    return root / work_dir


def differences(first: Any, second: Any, name: str = '') -> Iterator[str]:
    """Name all entries in which two checkpoints differ at all, except for times and names."""
    if isinstance(first, HistoryBuffer):
        first, second = ([one._log_history.tolist(), one._count_history.tolist()] for one in (first, second))
    if type(first) is not type(second):
        yield f'{name}: {type(first).__name__} and {type(second).__name__}'
    elif isinstance(first, Mapping):
        keys = (first.keys() | second.keys()) - OWN
        for key in keys:
            if key not in first or key not in second:
                yield f'{name}.{key} is missing'
            else:
                yield from differences(first[key], second[key], f'{name}.{key}')
    elif isinstance(first, (list, tuple)):
        if len(first) != len(second):
            yield f'{name}: {len(first)} and {len(second)} entries'
        for index, pair in enumerate(zip(first, second, strict=False)):
            yield from differences(*pair, f'{name}.{index}')
    elif not (torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second):
        yield name


def batches_of(work_dir: Path, rank: int = 0) -> dict[int, list]:
    """Return what ``BatchRecorder`` wrote, by iteration."""
    record = json.loads((work_dir / f'batches_{rank}.json').read_text())
    return {int(number): batch for number, batch in record.items()}


def assert_equal_training(resumed: Path, whole: Path, iteration: int, last: int = 8, ranks: int = 1) -> None:
    """Compare all batches after an iteration, and the checkpoints of the last one."""
    for rank in range(ranks):
        uninterrupted = batches_of(whole, rank)
        assert batches_of(resumed, rank) == {number: uninterrupted[number] for number in range(iteration, last)}
    actual, expected = (read_checkpoint(path / f'iter_{last}.pth') for path in (resumed, whole))
    found = list(differences(actual, expected))
    assert not found, found
