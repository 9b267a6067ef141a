"""Check that COCO metrics evaluate against the annotations of the evaluated data set."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .errors import SetupError
from .ground_truth import check_ground_truth, check_label_order


@HOOKS.register_module()
class DefocusGroundTruthCheckHook(Hook):
    """Compare the annotations of COCO metrics with those of the evaluated data set.

    A config names both, and no other check compares them. See
    :func:`mmdefocus.engine.ground_truth.check_ground_truth`. The names of the classes of MMDetection's ``CocoDataset``
    are compared with its annotation file; see :func:`mmdefocus.engine.ground_truth.check_label_order`.

    Raises:
        SetupError: Before training, validation or test, if they differ.
    """

    def __init__(self) -> None:
        self._checked: Any = None

    def before_train(self, runner: Runner) -> None:
        """Check the training set and the validation set."""
        try:
            check_label_order(runner.train_dataloader.dataset)
        except ValueError as error:
            raise SetupError(str(error)) from error
        self._check(runner.val_loop, 'val')

    def before_val(self, runner: Runner) -> None:
        """Check the validation set, unless ``before_train`` did."""
        self._check(runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check the test set."""
        self._check(runner.test_loop, 'test')

    def _check(self, loop: Any, split: str) -> None:
        # Some loops do not evaluate a single data set.
        if not hasattr(loop, 'evaluator') or not hasattr(loop, 'dataloader') or loop is self._checked:
            return
        try:
            check_label_order(loop.dataloader.dataset)
            check_ground_truth(loop.dataloader.dataset, loop.evaluator.metrics, split)
        except ValueError as error:
            raise SetupError(str(error)) from error
        self._checked = loop
