"""Random numbers that depend on the epoch alone, so that a resumed training goes on as if it had not stopped."""

from functools import partial
from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed


@HOOKS.register_module()
class EpochSeedHook(DistSamplerSeedHook):
    """Seed all random numbers anew at the start of every training epoch, from the run's seed and the epoch's number.

    MMEngine's checkpoints hold the seed but not the state of the random numbers: without this hook, a resumed training
    draws augmentations, mixup and drop path of its first epoch again. With it, each epoch has its own numbers, in the
    main process, in the workers and in the order of the images, whether or not the training was interrupted before it.
    With ``randomness = dict(diff_rank_seed=True)`` the processes of a distributed training draw different numbers, of
    drop path and mixup among others, and share the order of the images.
    It takes the place of MMEngine's hook of the sampler: ``default_hooks.sampler_seed = dict(type='EpochSeedHook')``.

    Raises:
        RuntimeError: At the start of the training, when workers live on from one epoch to the next.
    """

    def before_train(self, runner: Runner) -> None:
        """Check that every epoch begins with new workers."""
        if getattr(runner.train_dataloader, 'persistent_workers', False):
            raise RuntimeError(
                'EpochSeedHook seeds the workers when they start, once per epoch; set '
                'train_dataloader.persistent_workers=False'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, the workers that are about to start, and the sampler."""
        super().before_train_epoch(runner)
        # Of the runner: its config is empty where it was not built from one.
        by_rank = runner._randomness_cfg.get('diff_rank_seed', False)
        # MMEngine's seed of a process has its rank added already; the sampler's must be the same in all of them.
        run_seed = runner.seed - get_rank() if by_rank else runner.seed
        seed = epoch_seed(run_seed, runner.epoch)
        set_random_seed(seed, diff_rank_seed=by_rank)
        loader = runner.train_dataloader
        loader.worker_init_fn = partial(loader.worker_init_fn, seed=seed)
        # Where the config names no seed, the sampler was built with another one than that of the checkpoint. It is the
        # batch sampler's: that of the loader is a dummy where the config has a batch sampler, as mmdet's do.
        sampler: Any = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(sampler, 'seed'):
            sampler.seed = run_seed


def epoch_seed(run_seed: int, epoch: int) -> int:
    """Seed of an epoch, below 2**31: far from that of the next one, as workers and ranks add small numbers to it."""
    return int(np.random.SeedSequence((run_seed, epoch)).generate_state(1)[0]) >> 1
