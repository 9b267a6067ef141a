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

    In step n, with s = max(n - ``delay``, 0), W = ``warmup``, N = ``end`` - ``cooldown`` and the start C of the cosine,
    which is W, or 0 with ``overlap``, the multiple is

        start_factor + (1 - start_factor) · s / W                       for s < W
        end_factor + (1 - end_factor) · (1 + cos(π (s - C) / (N - C))) / 2   from there on
        end_factor                                                      for s ≥ N.

    Trainers in the style of Swin set the rate after a step from the index of that step, so that step 1 repeats the rate
    of step 0 (``delay=1``). timm's scheduler lets the warm-up replace the beginning of the cosine (``overlap=True``)
    unless it is told to put the warm-up before it. MMEngine's ``LinearLR`` and ``CosineAnnealingLR`` cannot delay a
    schedule in epochs by one iteration, nor begin within the cosine, and their warm-up has W - 1 intervals.

    Args:
        optimizer: Optimiser or its wrapper.
        warmup: W, number of warm-up steps; with ``convert_to_iter_based=True`` in the config, epochs.
        end: Number of all steps (or epochs). MMEngine fills in the length of the training.
        start_factor: Multiple at the first step.
        end_factor: Multiple at the end of the cosine, and from there on.
        cooldown: Number of steps (or epochs) after the cosine.
        overlap: If True, the cosine begins with the training, and the warm-up replaces its first W steps.
        delay: Number of steps that repeat the rate of step 0; never epochs.
        last_step: Index of the previous step, to resume without state.
        by_epoch: Count epochs as steps.
        verbose: Log every change.

    Raises:
        ValueError: ``warmup`` is not within 0 … N - 1, or ``cooldown`` or ``delay`` is negative.
    """

    def __init__(
        self,
        optimizer: Optimizer | OptimWrapper,
        warmup: int,
        end: int,
        start_factor: float,
        end_factor: float,
        cooldown: int = 0,
        overlap: bool = False,
        delay: int = 1,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if cooldown < 0 or delay < 0:
            raise ValueError(f'expected a cooldown and a delay of at least 0, got {cooldown} and {delay}')
        self.cosine_end = end - cooldown
        if not 0 <= warmup < self.cosine_end:
            length = f'{end}, without the cooldown {self.cosine_end}' if cooldown else f'{end}'
            raise ValueError(
                f'expected a warmup from 0 to less than the length of the training ({length}), got {warmup}'
            )
        self.warmup = warmup
        self.cosine_start = 0 if overlap else warmup
        self.delay = delay
        self.start_factor = start_factor
        self.end_factor = end_factor
        super().__init__(optimizer, end=end, last_step=last_step, by_epoch=by_epoch, verbose=verbose)

    @classmethod
    def build_iter_from_epoch(
        cls, *, warmup: int, end: int, epoch_length: int, cooldown: int = 0, by_epoch: bool = True, **kwargs: Any
    ) -> 'DefocusWarmupCosineLR':
        """Build a schedule in iterations from lengths in epochs."""
        assert by_epoch, 'MMEngine converts schedules by epoch only'
        warmup, end, cooldown = (epochs * epoch_length for epochs in (warmup, end, cooldown))
        return cls(warmup=warmup, end=end, cooldown=cooldown, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        step = max(self.last_step - self.delay, 0)
        if step < self.warmup:
            factor = self.start_factor + (1 - self.start_factor) * step / self.warmup
        else:
            done = min((step - self.cosine_start) / (self.cosine_end - self.cosine_start), 1)
            factor = self.end_factor + (1 - self.end_factor) * (1 + math.cos(math.pi * done)) / 2
        return [value * factor for value in self.base_values]
