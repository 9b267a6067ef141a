"""Peak memory of a training with the largest batch that its data can produce, measured before the training."""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from json import loads
from types import TracebackType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from .errors import SetupError
from .largest_batch import LargestImages, Size, largest_images

_PROGRAM = 'mmdefocus.engine.training_trial'


@dataclass(frozen=True)
class LargestBatch:
    """What the largest batches of a training contain.

    Attributes:
        images: Number of images of the training set.
        one: Height and width in pixels of the largest image.
        common: Height and width to which the images of a batch are padded, at most.
        objects: Largest number of objects in an image; at least 1.
        masks: The objects have masks.
        channels: Channels of an image.
        assumed: Names of transforms whose effect is unknown; they are taken to keep the size and the objects.
    """

    images: int
    one: Size
    common: Size
    objects: int
    masks: bool = False
    channels: int = 3
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """Outcome of a few training steps.

    Attributes:
        count: Images in the batch.
        peak_bytes: Peak memory of model, gradients, optimiser, average of weights and activations, without that of the
            imported libraries. Of a trial that did not end, what it had taken, or 0 if that is unknown.
        error: None, ``'out of memory'`` or ``'killed'``.
    """

    count: int
    peak_bytes: int
    error: str | None = None


def largest_batch(cfg: Config) -> LargestBatch:
    """Find the size and the number of objects of the largest batch of a training.

    Args:
        cfg: Config with a training set.

    Raises:
        SetupError: The config has no training set.
    """
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    if not isinstance(dataset, Mapping):
        raise SetupError('a trial of the memory needs train_dataloader.dataset, which the config does not have; add it')
    sizes: set[Size] = set()
    assumed: list[str] = []
    images, objects, masks = 0, 1, False
    for settings, pipeline in _parts(dataset, []):
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            built = registry.build(dict(settings, pipeline=[]))
        images += len(built)
        entries = [built.get_data_info(index) for index in range(len(built))]
        objects = max([objects, *(_count_objects(entry) for entry in entries)])
        masks = masks or any(step.get('with_mask') for step in pipeline)
        found = largest_images(pipeline, partial(_sizes, entries))
        sizes |= found.sizes
        assumed += [name for name in found.assumed if name not in assumed]
    together = LargestImages(sizes)
    channels = cfg.model.get('backbone', {}).get('in_channels', 3)
    if not isinstance(channels, int):
        channels = 3
    return LargestBatch(images, together.one, together.batch, objects, masks, channels, tuple(assumed))


def _parts(dataset: Mapping[str, Any], outer: list[Any]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Yield the data sets inside wrappers, each with all transforms."""
    pipeline = [*dataset.get('pipeline', []), *outer]
    if 'datasets' in dataset:
        for part in dataset['datasets']:
            yield from _parts(part, pipeline)
    elif 'dataset' in dataset:
        yield from _parts(dataset['dataset'], pipeline)
    else:
        yield dict(dataset), pipeline


def _count_objects(entry: Mapping[str, Any]) -> int:
    return sum(not instance.get('ignore_flag') for instance in entry.get('instances', []))


def _sizes(entries: Sequence[Mapping[str, Any]]) -> set[Size]:
    return {_size(entry) for entry in entries}


def _size(entry: Mapping[str, Any]) -> Size:
    if 'height' in entry:
        return entry['height'], entry['width']
    if 'img' in entry:
        return entry['img'].shape[0], entry['img'].shape[1]
    with Image.open(entry['img_path']) as image:
        return image.height, image.width


class MemoryTrials:
    """Trials of one training in a process of their own; use it in a ``with`` statement.

    The process starts with the first trial and ends with the block. It takes no random number of this process and
    leaves no file.

    Args:
        cfg: Config of the training; its ``num_classes`` are numbers.
        batch: Content of its largest batch.
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:0'``.
        most_bytes: Memory that a trial may take on a CPU. It ends with ``'out of memory'`` before the machine suffers.
    """

    def __init__(self, cfg: Config, batch: LargestBatch, device: str, most_bytes: int) -> None:
        self._cfg, self._batch, self._device, self._most_bytes = cfg, batch, device, most_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)

    def __enter__(self) -> 'MemoryTrials':
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._complaints.close()

    def measure(self, count: int) -> Measurement:
        """Train a few steps with a batch of ``count`` images.

        Raises:
            SetupError: The training fails for another reason than its memory.
        """
        height, width = self._batch.one if count == 1 else self._batch.common
        request = dict(
            count=count,
            height=height,
            width=width,
            objects=self._batch.objects,
            masks=self._batch.masks,
            channels=self._batch.channels,
            most_bytes=self._most_bytes,
        )
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(pickle.dumps(request))
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            return self._lost(count)
        answer = loads(line)
        if answer['error']:
            self._end()  # a process that ran out of memory keeps parts of it
        return Measurement(count, answer['peak'], answer['error'])

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, '-m', _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
        )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(pickle.dumps(dict(cfg=self._cfg, device=self._device)))
        return self._process

    def _lost(self, count: int) -> Measurement:
        """Say what became of a process that gave no answer."""
        assert self._process is not None
        status = self._process.wait()
        self._end()
        if status == -9:
            return Measurement(count, 0, 'killed')
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors='replace').strip().splitlines() or [f'status {status}']
        raise SetupError(
            f'a trial of the training with a batch of {count} images failed: {lines[-1]}. The training itself would '
            'fail, too: correct the config, or skip the trial to see the whole message'
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def training_device() -> str:
    """Return the device on which this process trains."""
    return f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if torch.cuda.is_available() else 'cpu'
