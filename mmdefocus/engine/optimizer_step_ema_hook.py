"""Average of the weights over the steps of the optimiser."""

from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class OptimizerStepEMAHook(EMAHook):
    """Exponential moving average of the weights with one update per step of the optimiser.

    MMEngine's ``EMAHook`` updates after every iteration. With gradient accumulation it takes the same weights
    ``optim_wrapper.accumulative_counts`` times into the average, whose time constant is that much shorter. Without
    accumulation both are equal. The average starts with the weights after the first step.

    Args:
        ema_type: Registered name of the average, as for ``EMAHook``.
        strict_load: Whether the keys of a checkpoint must match, as for ``EMAHook``.
        begin_iter: Iteration (not step) at which averaging begins; until then the average follows the weights.
        begin_epoch: Epoch at which averaging begins, instead of ``begin_iter``.
        **kwargs: Arguments of the average, such as ``momentum``, the share of the new weights.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Update the average where the optimiser made a step in this iteration."""
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
