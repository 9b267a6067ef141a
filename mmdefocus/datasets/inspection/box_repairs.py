"""Repairs of the boxes of a split. Each returns new content and the number of boxes that it changed or dropped."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .annotated_split import AnnotatedSplit
from .box_checks import empty_boxes, has_corners, is_normalised, outside_boxes, twin_boxes
from .split_repairs import Repaired


def convert_corners(annotated: AnnotatedSplit) -> Repaired:
    """Turn ``[x1, y1, x2, y2]`` into ``[x, y, w, h]`` if the boxes of the split are corners."""
    if not has_corners(annotated):
        return annotated.split.content, 0
    changed = {
        id(ann): [ann['bbox'][0], ann['bbox'][1], ann['bbox'][2] - ann['bbox'][0], ann['bbox'][3] - ann['bbox'][1]]
        for ann in annotated.boxed
    }
    return _with_boxes(annotated, changed)


def clip_boxes(annotated: AnnotatedSplit) -> Repaired:
    """Clip boxes that reach beyond their image. Those outside it stay, and so do boxes in another form."""
    if is_normalised(annotated) or has_corners(annotated):
        return annotated.split.content, 0
    boxes, sizes = annotated.boxes, annotated.image_sizes
    begin = np.clip(boxes[:, :2], 0, sizes)
    end = np.clip(boxes[:, :2] + boxes[:, 2:], 0, sizes)
    excess = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes).max(1, initial=0)
    # Sums of decimal fractions differ from the side of the image by rounding.
    positions = np.flatnonzero((excess > 1e-6) & ~outside_boxes(annotated) & ~empty_boxes(annotated))
    clipped = np.concatenate([begin, end - begin], 1)
    return _with_boxes(annotated, {id(annotated.boxed[one]): clipped[one].tolist() for one in positions})


def drop_empty(annotated: AnnotatedSplit) -> Repaired:
    """Drop boxes with a side below one pixel, and those outside their image; boxes in another form stay."""
    if is_normalised(annotated) or has_corners(annotated):
        return annotated.split.content, 0
    return _drop(annotated, np.flatnonzero(empty_boxes(annotated) | outside_boxes(annotated)).tolist())


def drop_twins(annotated: AnnotatedSplit) -> Repaired:
    """Drop boxes that repeat an earlier one."""
    return _drop(annotated, twin_boxes(annotated))


def _drop(annotated: AnnotatedSplit, positions: list[int]) -> Repaired:
    dropped = {id(annotated.boxed[position]) for position in positions}
    annotations = [ann for ann in annotated.split.content['annotations'] if id(ann) not in dropped]
    return annotated.split.content | dict(annotations=annotations), len(dropped)


def _with_boxes(annotated: AnnotatedSplit, boxes: Mapping[int, list[float]]) -> Repaired:
    """Replace boxes by the identity of their annotations. The area of a mask stays."""
    annotations: list[Any] = []
    for ann in annotated.split.content['annotations']:
        box = boxes.get(id(ann))
        if box is not None:
            ann = ann | dict(bbox=box) | ({} if ann.get('segmentation') else dict(area=max(box[2], 0) * max(box[3], 0)))
        annotations.append(ann)
    return annotated.split.content | dict(annotations=annotations), len(boxes)
