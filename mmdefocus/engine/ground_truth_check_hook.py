"""Refuses to evaluate detections against the annotations of another data set."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdefocus.evaluation.ground_truth import check_ground_truth

from .errors import SetupError


@HOOKS.register_module()
class GroundTruthCheckHook(Hook):
    """Compare the annotations of COCO metrics with those of the evaluated data set.

    Both are named in a config, and nothing else would notice if they differ. See
    :func:`mmdefocus.evaluation.ground_truth.check_ground_truth`.

    Raises:
        SetupError: Before training, validation or test, when they differ.
    """

    def __init__(self) -> None:
        self._checked: Any = None

    def before_train(self, runner: Runner) -> None:
        """Check what the training is validated on."""
        self._check(runner.val_loop, 'val')

    def before_val(self, runner: Runner) -> None:
        """Check the validation set, unless that was done before the training."""
        self._check(runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        self._check(runner.test_loop, 'test')

    def _check(self, loop: Any, split: str) -> None:
        # Not every loop evaluates one data set.
        if not hasattr(loop, 'evaluator') or not hasattr(loop, 'dataloader') or loop is self._checked:
            return
        try:
            check_ground_truth(loop.dataloader.dataset, loop.evaluator.metrics, split)
        except ValueError as error:
            raise SetupError(str(error)) from error
        self._checked = loop
