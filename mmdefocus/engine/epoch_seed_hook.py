"""Random numbers that depend on the epoch alone, so that a resumed training equals an uninterrupted one."""

from functools import partial
from typing import Any

import numpy as np
from mmengine.dist import get_rank
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed


@HOOKS.register_module()
class DefocusEpochSeedHook(DistSamplerSeedHook):
    """Seed all random number generators at the start of every training epoch, from the seed of the run and the epoch.

    MMEngine's checkpoints hold the seed but not the state of the generators: without this hook, a resumed training
    repeats the augmentations, mixup and drop path of its first epoch. With it, each epoch has its own random numbers,
    in the main process, in the workers and in the order of the images, whether or not the training was interrupted.
    With ``randomness = dict(diff_rank_seed=True)``, the processes of a distributed training draw different numbers, for
    drop path and mixup among others, and share the order of the images. The hook replaces MMEngine's sampler hook:
    ``default_hooks = dict(sampler_seed=dict(type='DefocusEpochSeedHook'))``.

    Raises:
        RuntimeError: At the start of the training, if workers persist from one epoch to the next.
    """

    def before_train(self, runner: Runner) -> None:
        """Check that every epoch starts new workers."""
        if getattr(runner.train_dataloader, 'persistent_workers', False):
            raise RuntimeError(
                'DefocusEpochSeedHook seeds the workers when they start, once per epoch; set '
                'train_dataloader.persistent_workers=False'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, the workers of the coming epoch, and the sampler."""
        super().before_train_epoch(runner)
        # Ask the runner: its config is empty if it was not built from one.
        by_rank = runner._randomness_cfg.get('diff_rank_seed', False)
        # MMEngine adds the rank to the seed of a process; samplers need the same seed in all processes.
        run_seed = runner.seed - get_rank() if by_rank else runner.seed
        seed = epoch_seed(run_seed, runner.epoch)
        set_random_seed(seed, diff_rank_seed=by_rank)
        loader = runner.train_dataloader
        loader.worker_init_fn = partial(loader.worker_init_fn, seed=seed)
        # Without a seed in the config, the sampler was built with a seed other than that of the checkpoint. Take the
        # batch sampler's sampler: with a batch sampler in the config, as in mmdet's, that of the loader is a dummy.
        sampler: Any = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(sampler, 'seed'):
            sampler.seed = run_seed


def epoch_seed(run_seed: int, epoch: int) -> int:
    """Return the seed of an epoch, below 2**31 and far from that of the next: workers and ranks add small numbers."""
    return int(np.random.SeedSequence((run_seed, epoch)).generate_state(1)[0]) >> 1
