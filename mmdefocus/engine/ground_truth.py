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
        ValueError: A metric has other images, categories or boxes, or MMDetection's own ``CocoMetric`` would count them
            wrongly: an annotation with the id 0, or images that the data set leaves out.
    """
    datasets = list(_innermost(dataset))
    if not all(type(one) is CocoDataset or isinstance(one, DefocusCocoDataset) for one in datasets):
        return
    # Without an ann_file, a metric uses the annotations of the data set.
    metrics = [
        metric for metric in metrics if type(metric) in (CocoMetric, DefocusCocoMetric) and metric._coco_api is not None
    ]
    if not metrics:
        return
    contents = [_read(one) for one in datasets]
    name = ', '.join(repr(one.ann_file) for one in datasets)
    for metric in metrics:
        difference = _difference(contents, metric._coco_api.dataset)
        if difference:
            raise ValueError(
                f'{split}_evaluator: the ann_file of {type(metric).__name__} is not that of the {split} data set, '
                f'{name}: {difference}. Set {split}_evaluator.ann_file to the annotation file of '
                f'{split}_dataloader.dataset'
            )
        if type(metric) is CocoMetric:
            _check_stock_metric(metric, len(dataset), name, split)


def _check_stock_metric(metric: CocoMetric, num_images: int, name: str, split: str) -> None:
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
    # Labels are positions among the categories, so their order counts.
    if len({_categories(content) for content in (*contents, truth)}) > 1:
        return 'their categories, or the order of the categories, differ'
    for kind, entries_of in (('images', _images), ('boxes', _boxes)):
        ours = Counter(entry for content in contents for entry in entries_of(content))
        theirs = Counter(entries_of(truth))
        if ours != theirs:
            return (
                f'the data set has {ours.total()} {kind} and the evaluator {theirs.total()}, of which '
                f'{(ours & theirs).total()} are the same'
            )
    return None


def _categories(content: Mapping[str, Any]) -> tuple:
    return tuple((category['id'], category['name']) for category in content['categories'])


def _images(content: Mapping[str, Any]) -> list[tuple]:
    return [(image['id'], image['width'], image['height']) for image in content['images']]


def _boxes(content: Mapping[str, Any]) -> list[tuple]:
    return [
        (ann['image_id'], ann['category_id'], *ann['bbox'], ann.get('iscrowd', 0))
        for ann in content.get('annotations', [])
    ]
