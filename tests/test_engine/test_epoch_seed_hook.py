"""That trainings with and without a break are equal is tested in tests/test_tools/test_resume_grid.py; what the
processes of a real distributed training draw, in test_ranks.py."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader

from mmdefocus.engine import DefocusEpochSeedHook

SEED = 5


@pytest.fixture
def begin_epoch(monkeypatch):
    """Begin an epoch and an iteration in the process of a rank: the loader and the numbers that both draw."""

    def begin(rank: int, by_rank: bool, epoch: int = 2, batch_sampler: bool = False) -> tuple[DataLoader, list[float]]:
        monkeypatch.setattr('mmdefocus.engine.epoch_seed_hook.get_rank', lambda: rank)
        dataset = [*range(8)]
        # Built before the seed of a resumed training is known.
        sampler = DefaultSampler(dataset, seed=1000 + rank)
        sampling = (
            {'batch_sampler': BatchSampler(sampler, 2, drop_last=False)} if batch_sampler else {'sampler': sampler}
        )
        loader = DataLoader(dataset, **sampling)
        runner = SimpleNamespace(
            epoch=epoch,
            iter=4 * epoch,
            seed=SEED + rank if by_rank else SEED,  # as MMEngine has it
            _randomness_cfg={'seed': SEED, 'diff_rank_seed': by_rank},
            train_dataloader=loader,
            train_loop=SimpleNamespace(dataloader=loader),
        )
        hook = DefocusEpochSeedHook()
        hook.before_train_epoch(runner)
        drawn = [torch.rand(1).item()]
        for _ in range(2):
            hook.before_train_iter(runner, 0)
            drawn.append(torch.rand(1).item())
            runner.iter += 1
        return loader, drawn

    return begin


@pytest.mark.parametrize('batch_sampler', [False, True])
@pytest.mark.parametrize('by_rank', [False, True])
def test_all_ranks_share_the_seed_of_the_sampler(begin_epoch, by_rank, batch_sampler):
    for rank in range(3):
        loader, _ = begin_epoch(rank, by_rank, batch_sampler=batch_sampler)
        sampler = loader.batch_sampler.sampler
        assert (sampler.seed, sampler.epoch) == (SEED, 2)
        assert loader.batch_sampler.seed == SEED


def test_ranks_draw_their_own_numbers_where_the_config_says_so(begin_epoch):
    assert len({number for rank in range(3) for number in begin_epoch(rank, by_rank=True)[1]}) == 3 * 3
    assert len({number for rank in range(3) for number in begin_epoch(rank, by_rank=False)[1]}) == 3


def test_epochs_draw_their_own_numbers(begin_epoch):
    assert len({number for epoch in range(3) for number in begin_epoch(0, True, epoch)[1]}) == 3 * 3
