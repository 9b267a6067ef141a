"""Exponential moving average of the weights over the steps of the optimiser."""

from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .errors import SetupError


@HOOKS.register_module()
class DefocusOptimizerStepEMAHook(EMAHook):
    """Exponential moving average of the weights with one update per step of the optimiser.

    MMEngine's ``EMAHook`` updates after every iteration. With gradient accumulation it adds the same weights
    ``optim_wrapper.accumulative_counts`` times, which shortens the time constant by this factor. Without accumulation
    both are equal. The average starts with the weights after the first step.

    Args:
        ema_type: Registered name of the average, as for ``EMAHook``.
        strict_load: Require the keys of a checkpoint to match, as for ``EMAHook``.
        begin_iter: Iteration (not step) at which averaging begins; until then the average follows the weights.
        begin_epoch: Epoch at which averaging begins, instead of ``begin_iter``.
        **kwargs: Arguments of the average, such as ``momentum``, the share of the new weights.

    Raises:
        SetupError: At the start of a run with another ``EMAHook``: each would swap the weights of the other.
    """

    def before_run(self, runner: Runner) -> None:
        """Check that this is the only average, and create it."""
        others = [type(hook).__name__ for hook in runner.hooks if isinstance(hook, EMAHook) and hook is not self]
        if others:
            raise SetupError(
                f'a run can average its weights once, but it has {type(self).__name__} and {", ".join(others)}: '
                'change default_hooks.ema of the config instead of adding a hook to custom_hooks'
            )
        super().before_run(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Update the average where the optimiser made a step in this iteration."""
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
