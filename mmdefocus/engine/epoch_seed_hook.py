"""Random numbers that depend on the iteration alone, so that a resumed training equals an uninterrupted one."""

from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import DistSamplerSeedHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .numbered_batches import EPOCH, ITERATION, number_batches, seed_generators
from .resume_position import checkpoints_within_steps, continue_at_position, store_position


@HOOKS.register_module()
class DefocusEpochSeedHook(DistSamplerSeedHook):
    """Seed all random number generators at every epoch, iteration and sample, by the seed of the run and its number.

    MMEngine's checkpoints hold the seed but not the state of the generators: without this hook, a resumed training
    repeats the augmentations, mixup and drop path of its first epoch. With it, each iteration has its own random
    numbers in the main process, each sample has them in the workers, and each epoch has its order of the images,
    whether or not the training was interrupted. The number of workers makes no difference. Checkpoints hold the
    position in the epoch, and accumulated gradients in a training of one process.

    With ``randomness = dict(diff_rank_seed=True)``, the processes of a distributed training draw different numbers, for
    drop path and mixup among others, and share the order of the images. The hook replaces MMEngine's sampler hook:
    ``default_hooks = dict(sampler_seed=dict(type='DefocusEpochSeedHook'))``; the tools do so in every training.

    Raises:
        SetupError: At the start of the training, if its checkpoint is from the middle of an epoch and the loop is not
            one of this package.
    """

    # Before the hooks that draw numbers.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._epoch_begin = (0, 0)

    def before_train(self, runner: Runner) -> None:
        """Warn of what makes a resumed training differ."""
        for warning in checkpoints_within_steps(runner):
            runner.logger.warning(warning)
        if number_batches(runner.train_dataloader) is None:
            runner.logger.warning(
                'The training set has no numbered samples: its workers keep the random numbers of MMEngine, and a '
                'resumed training differs from an uninterrupted one'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process, the samples of the coming epoch, and their order."""
        super().before_train_epoch(runner)
        self._epoch_begin = (runner.epoch, runner.iter - getattr(runner.train_loop, 'first_batch', 0))
        seed = _run_seed(runner)
        seed_generators(seed, EPOCH, runner.epoch, _own_number(runner))
        loader = runner.train_dataloader
        batches = number_batches(loader)
        if batches is not None:
            batches.seed, batches.iteration = seed, runner.iter
        # Without a seed in the config, the sampler was built with a seed other than that of the checkpoint. Take the
        # batch sampler's sampler: with a batch sampler in the config, as in mmdet's, that of the loader is a dummy.
        sampler: Any = getattr(loader.batch_sampler, 'sampler', None)
        if hasattr(sampler, 'seed'):
            sampler.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed this process for mixup, drop path and whatever else draws numbers in this iteration."""
        seed_generators(_run_seed(runner), ITERATION, runner.iter, _own_number(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Store the position in the epoch, and gradients that wait for a step of the optimiser."""
        store_position(runner, checkpoint, self._epoch_begin)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Continue at the position of the checkpoint."""
        if runner._resume:
            continue_at_position(runner, checkpoint)


def _run_seed(runner: Runner) -> int:
    """Return the seed that all processes share; MMEngine adds the rank to the seed of a process."""
    return runner.seed - get_rank() if _by_rank(runner) else runner.seed


def _own_number(runner: Runner) -> int:
    return get_rank() if _by_rank(runner) else 0


def _by_rank(runner: Runner) -> bool:
    # Ask the runner: its config is empty if it was not built from one.
    return runner._randomness_cfg.get('diff_rank_seed', False)
