"""That trainings with and without a break are equal is tested in tests/test_tools: test_classification_runs.py and
test_detector_runs.py; what the processes of a real distributed training draw, in test_ranks.py."""

from functools import partial
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler, worker_init_fn
from torch.utils.data import BatchSampler, DataLoader

from mmdefocus.engine import DefocusEpochSeedHook
from mmdefocus.engine.epoch_seed_hook import epoch_seed

SEED = 5


def test_seeds_depend_on_the_run_and_the_epoch():
    seeds = {pair: epoch_seed(*pair) for pair in product(range(20), range(300))}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert epoch_seed(2**32 - 1, 0) < 2**31, 'the largest seed that NumPy takes'


def test_seeds_leave_room_for_workers_and_ranks():
    seeds = sorted(epoch_seed(0, epoch) for epoch in range(300))
    gaps = [second - first for first, second in pairwise(seeds)]
    assert min(gaps) > 1024, 'as many workers of all ranks have seeds of their own'


@pytest.fixture
def begin_epoch(monkeypatch):
    """Begin an epoch in the process of a rank: the loader and the next random number."""

    def begin(rank: int, by_rank: bool, epoch: int = 2, batch_sampler: bool = False) -> tuple[DataLoader, float]:
        for module in ('mmdefocus.engine.epoch_seed_hook', 'mmengine.runner.utils'):
            monkeypatch.setattr(f'{module}.get_rank', lambda: rank)
        dataset = [*range(8)]
        # Built before the seed of a resumed training is known.
        sampler = DefaultSampler(dataset, seed=1000 + rank)
        sampling = (
            {'batch_sampler': BatchSampler(sampler, 2, drop_last=False)} if batch_sampler else {'sampler': sampler}
        )
        init = partial(worker_init_fn, num_workers=2, rank=rank, seed=1000)
        loader = DataLoader(dataset, worker_init_fn=init, **sampling)
        runner = SimpleNamespace(
            epoch=epoch,
            seed=SEED + rank if by_rank else SEED,  # as MMEngine has it
            _randomness_cfg={'seed': SEED, 'diff_rank_seed': by_rank},
            train_dataloader=loader,
            train_loop=SimpleNamespace(dataloader=loader),
        )
        DefocusEpochSeedHook().before_train_epoch(runner)
        return loader, torch.rand(1).item()

    return begin


@pytest.mark.parametrize('batch_sampler', [False, True])
@pytest.mark.parametrize('by_rank', [False, True])
def test_all_ranks_share_the_seed_of_the_sampler(begin_epoch, by_rank, batch_sampler):
    for rank in range(3):
        loader, _ = begin_epoch(rank, by_rank, batch_sampler=batch_sampler)
        sampler = loader.batch_sampler.sampler
        assert (sampler.seed, sampler.epoch) == (SEED, 2)


def test_ranks_draw_their_own_numbers_where_the_config_says_so(begin_epoch):
    assert len({begin_epoch(rank, by_rank=True)[1] for rank in range(3)}) == 3
    assert len({begin_epoch(rank, by_rank=False)[1] for rank in range(3)}) == 1


def test_workers_of_all_ranks_have_their_own_seeds(begin_epoch):
    drawn = set()
    for rank, epoch in product(range(3), range(2)):
        loader, _ = begin_epoch(rank, by_rank=True, epoch=epoch)
        for worker in range(2):
            loader.worker_init_fn(worker)
            drawn.add(torch.rand(1).item())
    assert len(drawn) == 3 * 2 * 2
