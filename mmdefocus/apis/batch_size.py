"""The batch size of a training, tried before its first epoch."""

import copy
import logging
import math
import os
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size
from mmengine.logging import print_log

from mmdefocus.engine.memory_limit import memory_limit
from mmdefocus.engine.memory_trial import LargestBatch, Measurement, MemoryTrials, largest_batch, training_device

from .errors import UsageError
from .learning_rate import base_batch_size, describe_lr
from .num_classes import resolve_num_classes

AUTO = 'auto'
# Layers whose statistics of a single image would be those of the batch.
_BATCH_NORMS = ('BN', 'BN1d', 'BN2d', 'BN3d', 'SyncBN', 'MMSyncBN', 'BatchNorm2d')


@dataclass(frozen=True)
class MemoryTrial:
    """Batch size of a process that was tried with real training steps.

    Attributes:
        batch_size: Images in a batch.
        peak_bytes: Peak memory of the steps, without that of the imported libraries and of the data workers.
        limit_bytes: Memory that the training may take.
        per_image_bytes: What each image of a batch adds; 0 if only one size was tried.
        fixed_bytes: What the training takes apart from that: weights, gradients, optimiser; 0 as above.
        device: ``'cpu'`` or ``'cuda:0'``.
        image_size: Height and width in pixels to which the images of the trial were padded.
        objects: Objects per image of the trial.
    """

    batch_size: int
    peak_bytes: int
    limit_bytes: int
    per_image_bytes: int
    fixed_bytes: int
    device: str
    image_size: tuple[int, int]
    objects: int

    def describe(self) -> str:
        """Return one line for the log."""
        height, width = self.image_size
        return (
            f'batch of {self.batch_size}: peak {_size(self.peak_bytes)} of {_size(self.limit_bytes)} ({self.device}, '
            f'images of up to {width}x{height} pixels with up to {self.objects} '
            f'object{"s" if self.objects > 1 else ""})'
        )


def find_batch_size(cfg: Config, requested: int | str = AUTO, limit: int | None = None) -> MemoryTrial:
    """Find or try the batch size of a training by real steps with the largest batch that its data can produce.

    The steps run in a process of their own: forward and backward passes, the optimiser with its state, and the average
    of the weights, on noise of the largest size that the transforms can produce, with as many objects as the fullest
    image has. ``'auto'`` measures two small batches, extrapolates, and confirms the result by a third trial. It is at
    most the share of each process in the base batch size of the recipe (without one, the batch size of the config) and
    in the images of the training set. A number is tried as it is.

    In a distributed training, the first process tries, and all of them take its result.

    Args:
        cfg: Config of a training. It does not change.
        requested: ``'auto'``, or a number of images per process.
        limit: Memory in bytes that the training may take; None for
            :func:`~mmdefocus.engine.memory_limit.memory_limit`.

    Raises:
        UsageError: The batch does not fit into the memory; the message says what was measured and what fits. Or the
            number is not possible.
    """
    if requested != AUTO and (isinstance(requested, bool) or not isinstance(requested, int) or requested < 1):
        raise UsageError(f"batch_size must be 'auto' or a whole number of at least 1, got {requested!r}; correct it")
    outcome: list[Any] = [None]
    if int(os.environ.get('RANK', 0)) == 0:
        try:
            outcome = [_find(cfg, requested, limit)]
        except ValueError as error:  # the other processes wait for an answer
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], ValueError):
        raise outcome[0]
    trial: MemoryTrial = outcome[0]
    print_log(f'{trial.describe()}; {describe_lr(cfg, trial.batch_size, get_world_size())}', logger='current')
    return trial


def _find(cfg: Config, requested: int | str, limit: int | None) -> MemoryTrial:
    cfg = copy.deepcopy(cfg)
    try:
        resolve_num_classes(cfg)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    batch = largest_batch(cfg)
    if batch.assumed:
        print_log(
            f'The trial of the memory takes {", ".join(batch.assumed)} to keep the sizes of images and the numbers of '
            'objects; the training may need more memory',
            logger='current',
            level=logging.WARNING,
        )
    least = 2 if _has_batch_norm(cfg.model) else 1
    share = batch.images // get_world_size()
    if share < least:
        raise UsageError(
            f'the training set has {batch.images} images, of which each process needs at least {least}'
            f'{" (the model normalises over batches)" if least > 1 else ""}; add images'
        )
    device = training_device()
    search = _Search(cfg, batch, device, memory_limit(device) if limit is None else limit, least)
    with search.trials:
        return search.automatic(_most(cfg, share, least)) if requested == AUTO else search.given(int(requested), share)


def _most(cfg: Config, share: int, least: int) -> int:
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    base = base_batch_size(cfg)
    wanted = cfg.train_dataloader.get('batch_size', 1) if base is None else base // (get_world_size() * accumulated)
    return max(min(wanted, share), least)


class _Search:
    """Trials of one training, and what they say together."""

    def __init__(self, cfg: Config, batch: LargestBatch, device: str, limit: int, least: int) -> None:
        self.cfg, self.batch, self.device, self.limit, self.least = cfg, batch, device, limit, least
        self.trials = MemoryTrials(cfg, batch, device, int(_ROOM * limit))
        self.measured: dict[int, Measurement] = {}

    def automatic(self, most: int) -> MemoryTrial:
        """Find the largest size up to ``most`` that fits."""
        small = [size for size in (2, 4) if self.least <= size < most]
        for size in small:
            if not self.fits(size):
                most = size
                break
        count = most if not self.measured else min(most, max(self._extrapolate(), self.least))
        while not self.fits(count):
            if count <= self.least:
                raise UsageError(self._too_large(count))
            count = max(count // 2, self.least)
        return self._trial(count)

    def given(self, count: int, share: int) -> MemoryTrial:
        """Try the size that the user asks for."""
        if count < self.least:
            raise UsageError(
                f'batch_size must be at least {self.least}, since the model normalises over batches, got {count}; '
                f'raise it, or use a model without batch normalisation'
            )
        if count > share and self.cfg.train_dataloader.get('drop_last'):
            raise UsageError(
                f'batch_size={count} is more than the {share} images that a process has, and train_dataloader has '
                f'drop_last=True: no batch would remain; set batch_size to at most {share}'
            )
        if self.fits(count):
            return self._trial(count)
        smaller = count
        while smaller > self.least:
            smaller = max(smaller // 2, self.least)
            if self.fits(smaller):
                raise UsageError(f'{self._too_large(count)}, or set batch_size={self._largest_below(count, smaller)}')
        raise UsageError(self._too_large(count))

    def fits(self, count: int) -> bool:
        """Return True if a batch of this size fits into the memory; try it once."""
        if count not in self.measured:
            self.measured[count] = self.trials.measure(count)
        found = self.measured[count]
        return found.error is None and found.peak_bytes <= self.limit

    def _largest_below(self, count: int, fitting: int) -> int:
        """Return a larger size that fits, if the extrapolation finds one and a trial confirms it."""
        guess = min(self._extrapolate(), count - 1)
        return guess if guess > fitting and self.fits(guess) else fitting

    def _line(self) -> tuple[int, int]:
        """Return the bytes per image and the fixed bytes by the smallest and the largest complete trial."""
        # A batch of one image is not padded, and so has another size of images.
        complete = sorted(size for size, found in self.measured.items() if found.error is None and size > 1)
        if len(complete) < 2:
            return 0, 0
        low, high = (self.measured[size] for size in (complete[0], complete[-1]))
        slope = max((high.peak_bytes - low.peak_bytes) // (high.count - low.count), 0)
        return slope, max(low.peak_bytes - slope * low.count, 0)

    def _extrapolate(self) -> int:
        slope, fixed = self._line()
        if slope == 0:
            return _ENDLESS
        return math.floor((self.limit - fixed) / slope)

    def _trial(self, count: int) -> MemoryTrial:
        per_image, fixed = self._line()
        size = self.batch.one if count == 1 else self.batch.common
        return MemoryTrial(
            count, self.measured[count].peak_bytes, self.limit, per_image, fixed, self.device, size, self.batch.objects
        )

    def _too_large(self, count: int) -> str:
        found = self.measured[count]
        height, width = self.batch.one if count == 1 else self.batch.common
        if found.error is None:
            needs = f'needs {_size(found.peak_bytes)}'
        elif found.error == 'killed':
            needs = 'was killed by the system, which ran out of memory'
        else:
            needs = f'ran out of memory at {_size(found.peak_bytes)}'
        return (
            f'a batch of {count} image{"s" if count > 1 else ""} of up to {width}x{height} pixels with up to '
            f'{self.batch.objects} objects {needs}, and the training may take {_size(self.limit)} on {self.device}; '
            'choose a smaller image_size or model, save memory with model.backbone.with_cp=True or --amp'
        )


_ENDLESS = 2**31
# Share of the limit at which a trial ends on a CPU: the process reserves more than it uses.
_ROOM = 1.25


def _has_batch_norm(node: Any) -> bool:
    """Return True if a config of a model names a batch normalisation that is trained."""
    if isinstance(node, dict):
        if node.get('norm_eval'):
            return False
        if node.get('type') in _BATCH_NORMS and node.get('requires_grad', True):
            return True
        return any(_has_batch_norm(child) for child in node.values())
    return isinstance(node, list | tuple) and any(_has_batch_norm(child) for child in node)


def _size(count: int) -> str:
    """Return a number of bytes in MiB or GiB."""
    return f'{count / 2**30:.1f} GiB' if count >= 2**30 else f'{count / 2**20:.0f} MiB'
