"""Batches that are numbered by the iteration that uses them, and seed the random numbers of their samples by it."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

# The second number of every key, so that no two purposes share their random numbers.
EPOCH, ITERATION, SAMPLE = range(3)


def seed_generators(*key: int, devices: bool = True) -> None:
    """Seed the generators of Python, NumPy and PyTorch in this process by a few numbers.

    Args:
        *key: Numbers of at least 0. Any two keys give independent random numbers.
        devices: Seed the generators of all devices, not only that of the CPU.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)  # noqa: NPY002 (transforms draw from it)
    seed = int(words[0]) | int(words[1]) << 32
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


class SeededIndices(Sequence[Any]):
    """Indices of the samples of one batch. Reading one seeds the random numbers of its sample.

    In the main process, the generators have their former state again after the last sample: with and without workers,
    a training draws the same numbers.

    Args:
        indices: Indices of the samples in the data set.
        seed: Seed of the training.
        iteration: Iteration that uses the batch, counted from 0 over the whole training.
    """

    def __init__(self, indices: Sequence[Any], seed: int, iteration: int) -> None:
        self.indices = indices
        rank, world_size = get_dist_info()
        # MMEngine's samplers deal the images to the processes in turns, so that these are the positions in the common
        # order: an image draws the same numbers whichever process loads it.
        self.keys = [(seed, SAMPLE, iteration, rank + place * world_size) for place in range(len(indices))]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        return self.indices[place]

    def __iter__(self) -> Iterator[Any]:
        with nullcontext() if get_worker_info() else _former_state():
            for index, key in zip(self.indices, self.keys, strict=True):
                seed_generators(*key, devices=False)
                yield index


class NumberedBatches(Sampler[Any]):
    """The batches of a batch sampler with seeds, from any of them on. :func:`number_batches` creates it.

    Attributes:
        seed: Seed of the training, or None to leave the random numbers of the samples as they are.
        iteration: Iteration that uses the next batch, counted from 0 over the whole training.
        skip: Batches to omit when the next epoch of the loader begins; their samples are not loaded.
        endless: Start the batch sampler again at its end, with the next epoch's order.
    """

    batches: Any = None

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.seed: int | None = None
        self.iteration = 0
        self.skip = 0
        self.endless = False

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the batch sampler, such as its sampler and batch size."""
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        batches = islice(self._passes() if self.endless else self.batches, self.skip, None)
        self.skip = 0
        for indices in batches:
            yield indices if self.seed is None else SeededIndices(indices, self.seed, self.iteration)
            self.iteration += 1

    def _passes(self) -> Iterator[Sequence[Any]]:
        return chain.from_iterable(map(self._pass, count() if len(self) else ()))

    def _pass(self, epoch: int) -> Iterator[Sequence[Any]]:
        set_epoch = getattr(getattr(self.batches, 'sampler', None), 'set_epoch', None)
        if set_epoch is not None:
            set_epoch(epoch)
        return iter(self.batches)


def number_batches(loader: DataLoader) -> NumberedBatches | None:
    """Number the batches of a dataloader, or return the numbered batches that it already has.

    Args:
        loader: Dataloader whose batch sampler is replaced.

    Returns:
        Its batch sampler, or None for samples that are iterated or not put into batches.
    """
    if isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    if batches is not None and not isinstance(batches, NumberedBatches):
        batches = NumberedBatches(batches)
        # DataLoader refuses to set it, as the sampler of its own epochs would not change; no epoch has begun here.
        vars(loader)['batch_sampler'] = batches
    return batches


@contextmanager
def _former_state() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
