"""Program that trains a few steps on synthetic images and reports its peak memory.

:mod:`mmdefocus.engine.memory_trial` starts it and writes pickled dictionaries to its input: first the config, then the
sizes of one batch after the other. It answers each with a line of JSON. A process of its own keeps the random numbers
and the memory of the training apart, and is the only victim if memory runs out.
"""

import contextlib
import copy
import gc
import json
import os
import pickle
import re
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings
from torch import nn

from mmdefocus.openmmlab import import_quietly

from .amp_optim_wrapper import choose_precision

_STATUS = Path('/proc/self/status')


def serve(requests: BinaryIO, answers: TextIO) -> None:
    """Answer all requests; the process ends with its input."""
    request = pickle.load(requests)
    cfg: Config = request['cfg']
    device = torch.device(request['device'])
    import_quietly('mmdet.datasets', 'mmpretrain.datasets')
    imports = (cfg.get('custom_imports') or {}).get('imports', [])
    import_modules_from_strings([imports] if isinstance(imports, str) else list(imports))
    DefaultScope.get_instance('memory trial', scope_name=cfg.get('default_scope'))
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    else:
        _keep_others_safe()
    baseline = _memory('VmRSS')
    while True:
        try:
            batch = pickle.load(requests)
        except EOFError:
            return
        answer = _try(cfg, device, batch, baseline)
        answers.write(json.dumps(answer) + '\n')
        answers.flush()


def _keep_others_safe() -> None:
    """Ask the kernel to end this process first if memory runs out."""
    with contextlib.suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('1000')


def _try(cfg: Config, device: torch.device, batch: dict[str, Any], baseline: int) -> dict[str, Any]:
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path('/proc/self/clear_refs').write_text('5')  # forget the former peak
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (_memory('VmData') + batch['most_bytes'], hard))
    error = None
    try:
        _train(cfg, device, batch)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        error = 'out of memory'
    except RuntimeError as failure:
        if "can't allocate memory" not in str(failure):
            raise
        error = 'out of memory'
    if device.type == 'cuda':
        return dict(peak=torch.cuda.max_memory_reserved(device), error=error)
    return dict(peak=max(_memory('VmHWM') - baseline, 0), error=error)


def _train(cfg: Config, device: torch.device, batch: dict[str, Any]) -> None:
    """Make a small step, after which the optimiser has its state, and the steps that are measured."""
    settings = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = revert_sync_batchnorm(MODELS.build(settings)).to(device).train()
    wrapper_settings = copy.deepcopy(cfg.optim_wrapper)
    # A step has the same memory after one batch as after several.
    wrapper_settings.pop('accumulative_counts', None)
    choose_precision(wrapper_settings)
    wrapper = build_optim_wrapper(model, wrapper_settings)
    average = copy.deepcopy(model) if _has_average(cfg) else None
    _wrap_checkpointed(cfg, model)
    model.train_step(_batch(cfg, dict(batch, count=min(batch['count'], 2)), 1), optim_wrapper=wrapper)
    # DINO repeats the objects of an image up to a given number of noisy queries, which is largest for a single object.
    for objects in {batch['objects'], 1} if 'dn_cfg' in cfg.model else {batch['objects']}:
        model.train_step(_batch(cfg, batch, objects), optim_wrapper=wrapper)
    del average


def _hooks(cfg: Config) -> list[Any]:
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    return [hook for hook in hooks if hook and 'type' in hook]


def _has_average(cfg: Config) -> bool:
    return any(re.search('EMA', str(hook['type'])) for hook in _hooks(cfg))


def _wrap_checkpointed(cfg: Config, model: nn.Module) -> None:
    from mmdefocus.engine.activation_checkpoint_hook import DefocusActivationCheckpointHook

    class Holder:
        """The only part of a runner that the hook reads."""

        def __init__(self, model: nn.Module) -> None:
            self.model = model

    for settings in _hooks(cfg):
        if str(settings['type']).endswith('ActivationCheckpointHook'):
            hook = HOOKS.build(settings)
            assert isinstance(hook, DefocusActivationCheckpointHook)
            hook.before_train(Holder(model))


def _batch(cfg: Config, batch: dict[str, Any], objects: int) -> dict[str, Any]:
    height, width, count = batch['height'], batch['width'], batch['count']
    # Noise in place of zeros, which the kernel would not store.
    images = [torch.randint(0, 256, (batch['channels'], height, width), dtype=torch.uint8) for _ in range(count)]
    if cfg.get('default_scope') == 'mmdet':
        return dict(inputs=images, data_samples=[_detection_sample(batch, objects) for _ in images])
    from mmpretrain.structures import DataSample

    return dict(
        inputs=torch.stack(images), data_samples=[DataSample().set_gt_label(index % 2) for index in range(count)]
    )


def _detection_sample(batch: dict[str, Any], objects: int) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    height, width = batch['height'], batch['width']
    corners = torch.rand(objects, 2) * torch.tensor([0.5 * width, 0.5 * height])
    sides = (0.1 + 0.4 * torch.rand(objects, 2)) * torch.tensor([width, height])
    truth = InstanceData(bboxes=torch.cat([corners, corners + sides], 1), labels=torch.zeros(objects, dtype=torch.long))
    if batch['masks']:
        truth.masks = BitmapMasks(np.ones((objects, height, width), np.uint8), height, width)
    shape = (height, width)
    sample = DetDataSample(
        metainfo=dict(img_id=0, img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0), flip=False)
    )
    sample.gt_instances = truth
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample


def _memory(name: str) -> int:
    """Return a line of the status of this process in bytes."""
    found = re.search(rf'^{name}:\s+(\d+) kB', _STATUS.read_text(), re.MULTILINE)
    assert found is not None, f'{_STATUS} has no {name}'
    return 1024 * int(found[1])


if __name__ == '__main__':
    # Imported modules print; the answers have a channel of their own.
    with os.fdopen(os.dup(sys.stdout.fileno()), 'w') as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin.buffer, channel)
