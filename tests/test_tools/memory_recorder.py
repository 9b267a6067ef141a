"""A tiny backbone, and a hook that records the memory and the open files of a training."""

import ctypes
import gc
import json
import os
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.model import BaseModule
from mmengine.registry import HOOKS, MODELS
from torch import nn

PAGE = os.sysconf('SC_PAGE_SIZE')
C = ctypes.CDLL(None)


@MODELS.register_module()
class OneConvolution(BaseModule):
    """Features (B, 4, 4, 4) of images (B, 3, 32, 32)."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, kernel_size=8, stride=8)

    def forward(self, images):
        return (self.convolution(images),)


@HOOKS.register_module()
class MemoryRecorder(Hook):
    """Every 100 iterations, after the checkpoint, note resident bytes and open descriptors in ``memory.json``."""

    priority = 'LOWEST'

    def __init__(self):
        self.records = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.every_n_train_iters(runner, 100):
            gc.collect()
            C.malloc_trim(0)  # Freed memory is no growth.
            resident = int(Path('/proc/self/statm').read_text().split()[1]) * PAGE
            self.records.append((runner.iter + 1, resident, len(os.listdir('/proc/self/fd'))))

    def after_train(self, runner):
        (Path(runner.work_dir) / 'memory.json').write_text(json.dumps(self.records))


@HOOKS.register_module()
class LeakyHook(Hook):
    """Keeps a kilobyte and every tenth time a descriptor of every iteration."""

    def __init__(self):
        self.kept = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept.append(bytearray(os.urandom(1024)))
        if self.every_n_train_iters(runner, 10):
            self.kept.append(open(os.devnull))  # noqa: SIM115
