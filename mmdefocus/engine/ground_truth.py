"""Compare the annotations of COCO metrics with those of the evaluated data set."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine import fileio
from mmengine.evaluator import BaseMetric

from mmdefocus.datasets.coco import DefocusCocoDataset
from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.evaluation.coco_metric import DefocusCocoMetric


def check_ground_truth(dataset: Any, metrics: Sequence[BaseMetric], split: str) -> None:
    """Check that COCO metrics evaluate a COCO data set against its own annotations.

    The contents of the files are compared, except for annotation ids, so that a metric may read a copy. Other data sets
    and metrics are ignored.

    Args:
        dataset: Evaluated data set, possibly wrapped or concatenated.
        metrics: Metrics of the evaluator.
        split: ``'val'`` or ``'test'``, for messages.

    Raises:
        ValueError: A metric has other images, categories or boxes, or evaluates masks that are not there, or
            MMDetection's own ``CocoMetric`` would count them wrongly: an annotation with the id 0, images that the data
            set leaves out, or categories in an order that it does not support.
    """
    datasets = list(_innermost(dataset))
    if not all(type(one) is CocoDataset or isinstance(one, DefocusCocoDataset) for one in datasets):
        return
    coco_metrics = [metric for metric in metrics if type(metric) in (CocoMetric, DefocusCocoMetric)]
    if not coco_metrics:
        return
    contents = [_read(one) for one in datasets]
    name = ', '.join(repr(one.ann_file) for one in datasets)
    for metric in coco_metrics:
        # Without an ann_file, a metric uses the annotations of the data set.
        truth = None if metric._coco_api is None else metric._coco_api.dataset
        if 'segm' in metric.metrics and not metric.format_only:
            _check_masks(contents if truth is None else [truth], name, split)
        if truth is None:
            continue
        difference = _difference(contents, truth)
        if difference:
            raise ValueError(
                f'{split}_evaluator: the ann_file of {type(metric).__name__} is not that of the {split} data set, '
                f'{name}: {difference}. Set {split}_evaluator.ann_file to the annotation file of '
                f'{split}_dataloader.dataset'
            )
        if type(metric) is CocoMetric:
            _check_stock_metric(metric, datasets, len(dataset), name, split)
        elif not truth.get('categories') and 'category_ids' not in (metric.dataset_meta or {}):
            raise ValueError(
                f'{name} lists no categories, and the checkpoint does not know the ids of its classes either; give the '
                f'{split} data set metainfo=dict(classes=..., category_ids=[...]), an id for every class'
            )


def check_label_order(dataset: Any) -> None:
    """Check the order of the classes of MMDetection's own ``CocoDataset``, whose labels follow the annotation file.

    Args:
        dataset: Data set, possibly wrapped or concatenated.

    Raises:
        ValueError: ``metainfo['classes']`` has another order than the file, so that labels would have wrong names.
    """
    for one in _innermost(dataset):
        classes = one.metainfo.get('classes') if type(one) is CocoDataset else None
        if classes is None or len(classes) < 2:
            continue
        listed = tuple(category['name'] for category in _read(one)['categories'] if category['name'] in classes)
        if listed != tuple(classes):
            raise ValueError(
                f'CocoDataset labels the classes in the order of {one.ann_file!r}, {abbreviate(listed)}, but the '
                f'config names them {abbreviate(classes)}, so that names would be wrong; use '
                "type='DefocusCocoDataset', which finds the categories by name, or give all classes in that order"
            )


def _check_masks(contents: Sequence[Mapping[str, Any]], name: str, split: str) -> None:
    annotations = [ann for content in contents for ann in content.get('annotations', [])]
    missing = [ann['id'] for ann in annotations if not ann.get('segmentation')]
    if missing:
        raise ValueError(
            f"{split}_evaluator: the metric 'segm' evaluates masks, and {len(missing)} of {len(annotations)} boxes of "
            f'{name} have no segmentation (the first is annotation {missing[0]!r}); export the annotations with masks, '
            f"or set {split}_evaluator.metric='bbox'"
        )


def _check_stock_metric(metric: CocoMetric, datasets: Sequence[Any], num_images: int, name: str, split: str) -> None:
    remedy = f"set {split}_evaluator.type='DefocusCocoMetric'"
    if 0 in metric._coco_api.anns:
        raise ValueError(
            f'{name} has an annotation with the id 0, which CocoMetric counts as not matched (the AP is too '
            f'low); {remedy}, which renumbers the annotations, or let the ids start at 1'
        )
    if num_images != len(metric._coco_api.imgs):
        raise ValueError(
            f'the {split} data set has {num_images} of the {len(metric._coco_api.imgs)} images of {name}, and '
            f'CocoMetric counts the boxes of the others as missed; {remedy}, which evaluates the images that were '
            'predicted, or remove indices from the data set'
        )
    ids = metric._coco_api.get_cat_ids(cat_names=datasets[0].metainfo['classes'])
    if any(list(one.cat_ids) != ids for one in datasets):
        raise ValueError(
            f'CocoMetric takes labels for positions among the categories of {name}, whose order is not that of the '
            f'classes {abbreviate(datasets[0].metainfo["classes"])}; {remedy}, which finds the categories by name'
        )
    if metric.classwise and ids != sorted(ids):
        raise ValueError(
            f'{name} does not list its categories by ascending id, and the table of CocoMetric with classwise=True '
            f'would give the AP of a class to another; {remedy}, or sort the categories'
        )


def _innermost(dataset: Any) -> Iterator[Any]:
    """Yield the data sets inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _innermost(part)
    elif hasattr(dataset, 'dataset'):
        yield from _innermost(dataset.dataset)
    else:
        yield dataset


def _read(dataset: CocoDataset) -> dict[str, Any]:
    with fileio.get_local_path(dataset.ann_file, backend_args=dataset.backend_args) as path, open(path, 'rb') as file:
        return json.load(file)


def _difference(contents: Sequence[Mapping[str, Any]], truth: Mapping[str, Any]) -> str | None:
    """Describe the difference between the annotation files of a data set and that of a metric; None without one."""
    if len({_categories(content) for content in (*contents, truth)}) > 1:
        return 'their categories differ in names or ids'
    for kind, entries_of in (('images', _images), ('boxes', _boxes)):
        ours = Counter(entry for content in contents for entry in entries_of(content))
        theirs = Counter(entries_of(truth))
        if ours != theirs:
            return (
                f'the data set has {ours.total()} {kind} and the evaluator {theirs.total()}, of which '
                f'{(ours & theirs).total()} are the same'
            )
    return None


def _categories(content: Mapping[str, Any]) -> frozenset:
    return frozenset((category['id'], category['name']) for category in content.get('categories', []))


def _images(content: Mapping[str, Any]) -> list[tuple]:
    return [(image['id'], image['width'], image['height']) for image in content['images']]


def _boxes(content: Mapping[str, Any]) -> list[tuple]:
    return [
        (ann['image_id'], ann['category_id'], *ann['bbox'], ann.get('iscrowd', 0))
        for ann in content.get('annotations', [])
    ]
