"""Imported by the configs of the resume grid."""

import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class BatchRecorder(Hook):
    """Writes ``batches_RANK.json``: by iteration, number in the epoch, files and sum of the pixels of the batch."""

    def __init__(self):
        self.batches = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        samples = data_batch['data_samples']
        pixels = sum(image.double().sum().item() for image in data_batch['inputs'])
        self.batches[runner.iter] = (batch_idx, ['/'.join(Path(s.img_path).parts[-2:]) for s in samples], pixels)

    def after_train(self, runner):
        (Path(runner.work_dir) / f'batches_{get_rank()}.json').write_text(json.dumps(self.batches))
