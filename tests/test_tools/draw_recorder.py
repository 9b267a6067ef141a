"""Imported by toy_ranks.py in the processes of a distributed training."""

import json
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class DrawRecorder(Hook):
    """Writes the images of every iteration and the numbers that are drawn next to ``rank_N.json``."""

    priority = 'LOWEST'

    def __init__(self):
        self.record = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        images = ['/'.join(Path(sample.img_path).parts[-2:]) for sample in data_batch['data_samples']]
        self.record.append(
            {
                'epoch': runner.epoch,
                'images': images,
                'drop_path': torch.rand(1).item(),
                'mixup': np.random.rand(),  # noqa: NPY002  # the generator that MMPreTrain's mixup uses
            }
        )

    def after_train(self, runner):
        path = Path(runner.work_dir) / f'rank_{get_rank()}.json'
        path.write_text(json.dumps(self.record))
