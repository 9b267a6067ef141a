"""Learning-rate schedule of the published classification recipes."""

import math
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from torch.optim import Optimizer


@PARAM_SCHEDULERS.register_module()
class DefocusWarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    """Linear warm-up and cosine decay, as multiples of the optimiser's learning rate.

    In step n of N, with s = max(n - 1, 0) and W = ``warmup``, the multiple is

        start_factor + (1 - start_factor) · s / W                       for s < W
        end_factor + (1 - end_factor) · (1 + cos(π (s - W) / (N - W))) / 2   from there on.

    The published trainer sets the rate after a step from the index of that step, so that step 1 repeats the rate of
    step 0. MMEngine's ``LinearLR`` and ``CosineAnnealingLR`` cannot delay a schedule in epochs by one iteration, and
    their warm-up has W - 1 intervals.

    Args:
        optimizer: Optimiser or its wrapper.
        warmup: W, number of warm-up steps; with ``convert_to_iter_based=True`` in the config, epochs.
        end: N, number of all steps (or epochs). MMEngine fills in the length of the training.
        start_factor: Multiple at the first step.
        end_factor: Multiple at the end.
        last_step: Index of the previous step, to resume without state.
        by_epoch: Count epochs as steps.
        verbose: Log every change.

    Raises:
        ValueError: ``warmup`` is not within 0 … ``end`` - 1.
    """

    def __init__(
        self,
        optimizer: Optimizer | OptimWrapper,
        warmup: int,
        end: int,
        start_factor: float,
        end_factor: float,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not 0 <= warmup < end:
            raise ValueError(f'expected a warmup from 0 to less than the length of the training ({end}), got {warmup}')
        self.warmup = warmup
        self.start_factor = start_factor
        self.end_factor = end_factor
        super().__init__(optimizer, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(
        cls, *, warmup: int, end: int, epoch_length: int, by_epoch: bool = True, **kwargs: Any
    ) -> 'DefocusWarmupCosineLR':
        """Build a schedule in iterations from lengths in epochs."""
        assert by_epoch, 'MMEngine converts schedules by epoch only'
        return cls(warmup=warmup * epoch_length, end=end * epoch_length, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        step = max(self.last_step - 1, 0)
        if step < self.warmup:
            factor = self.start_factor + (1 - self.start_factor) * step / self.warmup
        else:
            done = (step - self.warmup) / (self.end - self.warmup)
            factor = self.end_factor + (1 - self.end_factor) * (1 + math.cos(math.pi * done)) / 2
        return [value * factor for value in self.base_values]
