"""Check of the number of classes, heads against data sets, and of the order of image folders."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.models.heads.defocus_cls_head import check_labels

from .class_identity import same_names
from .errors import SetupError

# MMPreTrain's and MMDetection's names of heads for the classes of the data set; an RPN ('rpn_head') has one class.
HEADS = ('head', 'bbox_head', 'mask_head')


@HOOKS.register_module()
class DefocusClassCountHook(Hook):
    """Compare the number of classes of the data set with that of the heads of a classifier or detector.

    A head for 21,841 classes accepts the labels of 1000, and one for COCO's 80 those of 2, without an error. This hook
    compares the numbers, unless the ``metainfo`` of the data set names no classes. MMPreTrain's ``CustomDataset``
    labels folders in alphabetical order whatever its ``classes`` are, so another order is an error, too. In training,
    the hook also checks the labels of a classifier before batch augmentations, which fail at invalid labels without
    naming the cause, and on a GPU without naming the place.

    Raises:
        SetupError: Before training (for the validation set too), validation or test, if the numbers differ, or if
            labels would have the names of other folders.
        ValueError: In training, for a label outside the range of a head.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the training set with all classes of the heads, and the validation set with the predicted ones."""
        heads = _heads(runner.model)
        if not heads:
            kind = type(runner.model).__name__
            runner.logger.warning(f'DefocusClassCountHook finds no head with num_classes in {kind} and checks nothing')
        _check_folders(runner.train_dataloader.dataset)
        for name, head in heads:
            _compare(f'{name}.num_classes', head.num_classes, runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self.before_val(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Check the labels of a classifier's batch."""
        samples = (data_batch or {}).get('data_samples') or ()
        labels = [sample.gt_label for sample in samples if 'gt_label' in sample]
        if labels:
            for _, head in _heads(runner.model):
                check_labels(torch.cat(labels), head.num_classes)

    def before_val(self, runner: Runner) -> None:
        """Compare with the predicted classes."""
        _compare_predictions(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Compare with the predicted classes."""
        _compare_predictions(runner, runner.test_dataloader.dataset)


def predicted_counts(model: nn.Module) -> dict[str, int]:
    """Return the number of classes that each head of a model predicts.

    Args:
        model: Classifier or detector.

    Returns:
        Counts by the name of their setting, as in ``{'bbox_head.num_classes': 80}``.
    """
    counts = {}
    for name, head in _heads(model):
        chosen = getattr(head, 'predict_classes', None)
        setting, count = ('num_classes', head.num_classes) if chosen is None else ('predict_classes', len(chosen))
        counts[f'{name}.{setting}'] = count
    return counts


def _heads(model: nn.Module) -> list[tuple[str, Any]]:
    """Return names and modules of the heads; cascades and models with masks have several."""
    while hasattr(model, 'module'):  # distributed, or test-time augmentation
        model = model.get_submodule('module')
    return [
        (name, module)
        for name, module in model.named_modules()
        # A member of a list counts under the name of the list.
        if hasattr(module, 'num_classes') and name.rstrip('.0123456789').rpartition('.')[-1] in HEADS
    ]


def _compare_predictions(runner: Runner, dataset: Dataset) -> None:
    _check_folders(dataset)
    for setting, count in predicted_counts(runner.model).items():
        _compare(setting, count, dataset)


def _check_folders(dataset: Any) -> None:
    while hasattr(dataset, 'dataset'):  # wrappers such as RepeatDataset
        dataset = dataset.dataset
    for part in getattr(dataset, 'datasets', ()):
        _check_folders(part)
    labels = getattr(dataset, 'folder_to_idx', None)
    if not labels:
        return
    classes, folders = tuple(dataset.metainfo.get('classes') or ()), tuple(sorted(labels, key=labels.__getitem__))
    if classes != folders and same_names(classes, folders):
        raise SetupError(
            f'{type(dataset).__name__} labels the folders of {dataset.img_prefix!r} in the order '
            f'{abbreviate(folders)}, but its classes are {abbreviate(classes)}, so that names would be wrong; use '
            "type='DefocusImageFolder', which takes the order of the classes, or remove classes"
        )


def _compare(setting: str, count: int, dataset: Dataset) -> None:
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if classes is None or len(classes) == count:
        return
    name = setting.rpartition('.')[0]
    remedy = f'set model.{name}.num_classes to that of the data set (metainfo.classes)'
    if name == 'head':
        remedy += (
            ', and data_preprocessor.num_classes with it; to evaluate a head for more classes, set '
            "model.head.predict_classes to the indices of the data set's among them"
        )
    raise SetupError(
        f'{type(dataset).__name__} has {len(classes)} classes, but the model has {count} (model.{setting}): {remedy}'
    )
