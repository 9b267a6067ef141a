"""Finds a head that was made for other classes than those of the data set."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmdefocus.models.heads.defocus_cls_head import check_labels


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Compare the number of classes of the data set with that of the classification head.

    Labels of 1000 classes are in the range of a head for 21,841: without this, nothing would notice. Data sets whose
    ``metainfo`` names no classes are not compared. Labels of training images that the head has no class for are found
    before batch augmentations, which fail at them without saying why, or on a GPU without saying where.

    Raises:
        ValueError: Before training, validation or test, when the numbers differ, and in training at such a label.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare with all classes of the head."""
        _compare('num_classes', _head(runner).num_classes, runner.train_dataloader.dataset)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Look at the labels of the batch."""
        samples = (data_batch or {}).get('data_samples') or ()
        labels = [sample.gt_label for sample in samples if 'gt_label' in sample]
        if labels:
            check_labels(torch.cat(labels), _head(runner).num_classes)

    def before_val(self, runner: Runner) -> None:
        """Compare with the classes that a prediction has."""
        _compare_predictions(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Compare with the classes that a prediction has."""
        _compare_predictions(runner, runner.test_dataloader.dataset)


def _head(runner: Runner) -> Any:
    model = runner.model
    while hasattr(model, 'module'):  # distributed, or test-time augmentation
        model = model.module
    return model.head


def _compare_predictions(runner: Runner, dataset: Dataset) -> None:
    head = _head(runner)
    if getattr(head, 'predict_classes', None) is None:
        _compare('num_classes', head.num_classes, dataset)
    else:
        _compare('predict_classes', len(head.predict_classes), dataset)


def _compare(setting: str, count: int, dataset: Dataset) -> None:
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if classes is not None and len(classes) != count:
        raise ValueError(
            f'{type(dataset).__name__} has {len(classes)} classes, but {setting} of the head makes {count}: set '
            'head.num_classes (and data_preprocessor.num_classes) to that of the data set; to evaluate a head for more '
            "classes, set head.predict_classes to the indices of the data set's among them"
        )
