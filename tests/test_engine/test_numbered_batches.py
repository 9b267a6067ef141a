"""Batches with the random numbers of their iteration; tests/test_tools/test_resume_grid.py covers whole trainings."""

import random
from itertools import islice, product

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from mmdefocus.engine import numbered_batches
from mmdefocus.engine.numbered_batches import SeededIndices, number_batches, seed_generators


class Drawing:
    """Each sample is its index and a number from each generator."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def loader_of(sampler=DefaultSampler, **options) -> DataLoader:
    dataset = Drawing()
    return DataLoader(dataset, batch_size=3, sampler=sampler(dataset, seed=1), collate_fn=list, **options)


def batches_from(iteration, skip=0, **options) -> list:
    loader = loader_of(**options)
    batches = number_batches(loader)
    batches.seed, batches.iteration, batches.skip = 7, iteration, skip
    return list(loader)


def test_batches_do_not_depend_on_the_workers():
    expected = batches_from(0)
    assert [len(batch) for batch in expected] == [3, 3, 3, 1]
    for options in (dict(num_workers=1), dict(num_workers=3), dict(num_workers=2, persistent_workers=True)):
        assert batches_from(0, **options) == expected


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('skip', [0, 1, 3, 4])
def test_skipped_batches_change_nothing(skip, num_workers):
    assert batches_from(skip, skip, num_workers=num_workers) == batches_from(0)[skip:]


def test_skipped_batches_are_not_loaded(monkeypatch):
    loaded = []
    monkeypatch.setattr(Drawing, '__getitem__', lambda self, index: loaded.append(index))
    batches_from(2, skip=2)
    assert len(loaded) == 4


def test_a_batch_is_skipped_once():
    loader = loader_of()
    number_batches(loader).skip = 3
    assert [len(list(loader)), len(list(loader))] == [1, 4]


def test_every_sample_of_every_iteration_draws_its_own_numbers():
    numbers = [
        number for iteration in (0, 4) for batch in batches_from(iteration) for _, *drawn in batch for number in drawn
    ]
    assert len(set(numbers)) == len(numbers) == 2 * 10 * 3


def test_the_main_process_keeps_its_own_numbers():
    def next_numbers(between):
        seed_generators(3)
        between()
        return Drawing()[0]

    # What an iterator of a loader draws for the seeds of its workers.
    expected = next_numbers(lambda: torch.empty((), dtype=torch.int64).random_())
    assert next_numbers(lambda: batches_from(0)) == expected


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_batches_without_an_end(sampler):
    def of(skip):
        loader = loader_of(sampler)
        batches = number_batches(loader)
        batches.seed, batches.iteration, batches.skip, batches.endless = 7, skip, skip, True
        return [*islice(loader, 12 - skip)]

    whole = of(0)
    for skip in (1, 4, 6, 11):
        assert of(skip) == whole[skip:]
    orders = [[index for batch in whole[first : first + 4] for index, *_ in batch] for first in (0, 4)]
    assert orders[0] != orders[1]
    if sampler is DefaultSampler:
        assert sorted(orders[0]) == sorted(orders[1]) == [*range(10)]


def test_no_batches_end_at_once():
    loader = DataLoader([1], sampler=DefaultSampler([1]), batch_size=2, drop_last=True)
    number_batches(loader).endless = True
    assert list(loader) == []


def test_an_image_draws_the_same_numbers_in_any_number_of_processes(monkeypatch):
    def drawn(rank, world_size, indices):
        monkeypatch.setattr(numbered_batches, 'get_dist_info', lambda: (rank, world_size))
        return {index: random.random() for index in SeededIndices(indices, 7, 5)}

    assert drawn(0, 1, [4, 5, 6, 7]) == drawn(0, 2, [4, 6]) | drawn(1, 2, [5, 7])


def test_what_the_batch_sampler_offers_stays_visible():
    loader = loader_of()
    sampler = loader.batch_sampler
    batches = number_batches(loader)
    assert number_batches(loader) is batches
    assert isinstance(sampler, BatchSampler)
    assert (batches.sampler, batches.batch_size, len(batches)) == (sampler.sampler, 3, 4)
    with pytest.raises(AttributeError, match='nothing'):
        batches.nothing  # noqa: B018


def test_a_data_set_that_is_iterated_has_no_numbers():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([1, 2])

    assert number_batches(DataLoader(Stream())) is None


def test_keys_give_independent_numbers():
    drawn = set()
    for key in product(range(3), repeat=4):
        seed_generators(*key)
        drawn |= {random.random(), np.random.rand(), torch.rand(1).item()}  # noqa: NPY002
    assert len(drawn) == 3 * 3**4
    seed_generators(2**32 - 1, 0)
