"""That trainings with and without a break are equal is tested in tests/test_tools/test_classification_runs.py."""

from itertools import pairwise, product

from mmdefocus.engine.epoch_seed_hook import epoch_seed


def test_seeds_depend_on_the_run_and_the_epoch():
    seeds = {pair: epoch_seed(*pair) for pair in product(range(20), range(300))}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds.values())
    assert epoch_seed(2**32 - 1, 0) >= 0, 'the largest seed that NumPy takes'


def test_seeds_leave_room_for_workers_and_ranks():
    seeds = sorted(epoch_seed(0, epoch) for epoch in range(300))
    gaps = [second - first for first, second in pairwise(seeds)]
    assert min(gaps) > 1024, 'as many workers of all ranks have seeds of their own'
