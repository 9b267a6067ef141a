"""Checks of the boxes of a split: inside their image, not empty, in the right form, once each.

Shapes: N boxes of known images, as in :mod:`~mmdefocus.datasets.inspection.annotated_split`.
"""

from collections import defaultdict

import numpy as np

from mmdefocus.datasets.coco_values import are_corners

from .annotated_split import AnnotatedSplit, count_of, make_finding, part_of
from .findings import Finding

# Boxes of one class that overlap by more are the same box.
TWIN_IOU = 0.99
# Annotation tools round to whole pixels.
_TOLERANCE = 1.0


def check_boxes(annotated: AnnotatedSplit) -> list[Finding]:
    """Report boxes in another form, empty ones, those that leave their image or occur twice, and crowds."""
    total = len(annotated.boxes)
    if is_normalised(annotated):
        message = f'{part_of(total, total, "box")} with numbers from 0 to 1; boxes must be in pixels.'
        return annotated.box_finding('normalised', range(total), message, lambda one: _numbers(annotated, one))
    findings = []
    if has_corners(annotated):
        beyond = np.flatnonzero(_ends_beyond(annotated))
        message = (
            f'{part_of(len(beyond), total, "box")} reaching beyond their image, but inside it when they are read as '
            '[x1, y1, x2, y2].'
        )
        findings += annotated.box_finding('xyxy', beyond, message, lambda one: _numbers(annotated, one))
    else:
        findings += _outside(annotated)
    empty = np.flatnonzero(empty_boxes(annotated))
    message = f'{part_of(len(empty), total, "box")} with a side below one pixel; training drops them.'
    findings += annotated.box_finding('empty', empty, message, lambda one: _numbers(annotated, one))
    twins = twin_boxes(annotated)
    message = f'{part_of(len(twins), total, "box")} repeating a box of the same class (IoU ≥ {TWIN_IOU}).'
    findings += annotated.box_finding('twins', twins, message, lambda one: 'repeats an earlier box')
    crowds = [position for position, ann in enumerate(annotated.boxed) if ann.get('iscrowd') == 1]
    message = f'{part_of(len(crowds), total, "box")} with iscrowd=1.'
    return findings + annotated.box_finding('crowds', crowds, message, lambda one: 'crowd')


def check_objects(annotated: AnnotatedSplit) -> list[Finding]:
    """Report splits and images without objects."""
    name, images = annotated.split.name, annotated.images
    if name == 'train' and not len(annotated.boxes):
        return make_finding('no_boxes', name, f'0 boxes in {count_of(len(images), "image")}.', 1)
    # An image has objects even if their boxes cannot be used, which another check reports.
    used = {ann['image_id'] for ann in annotated.annotations}
    empty = [image for image in images if image['id'] not in used]
    message = f'{part_of(len(empty), len(images), "image")} without an object.'
    return make_finding('no_objects', name, message, len(empty), annotated.image_examples(empty, 'no object'))


def is_normalised(annotated: AnnotatedSplit) -> bool:
    """Return True if no number of any box exceeds 1, in images of more than one pixel."""
    boxes, sizes = annotated.boxes, annotated.image_sizes
    return len(boxes) > 0 and bool(boxes.max() <= 1 and boxes.min() >= 0 and (sizes > 2).all())


def has_corners(annotated: AnnotatedSplit) -> bool:
    """Return True if the boxes are most likely ``[x1, y1, x2, y2]``, by the test that the data set applies, too."""
    x, y, w, h = annotated.boxes.T
    width, height = annotated.image_sizes.T
    corners = (x < w) & (w <= width + _TOLERANCE) & (y < h) & (h <= height + _TOLERANCE)
    return are_corners(int(_ends_beyond(annotated).sum()), int(corners.sum()), len(x))


def empty_boxes(annotated: AnnotatedSplit) -> np.ndarray:
    """Return which boxes have a side below one pixel, (N,) bool."""
    return np.any(annotated.boxes[:, 2:] < 1, axis=1)


def outside_boxes(annotated: AnnotatedSplit) -> np.ndarray:
    """Return which boxes share no pixel with their image, (N,) bool."""
    begin, end = annotated.boxes[:, :2], annotated.boxes[:, :2] + annotated.boxes[:, 2:]
    return np.any((begin >= annotated.image_sizes) | (end <= 0), axis=1) & ~empty_boxes(annotated)


def twin_boxes(annotated: AnnotatedSplit) -> list[int]:
    """Return the positions of boxes that repeat an earlier one of the same image and class; crowds are left out."""
    groups = defaultdict(list)
    for position, ann in enumerate(annotated.boxed):
        if ann.get('iscrowd') != 1:
            groups[ann['image_id'], ann['category_id']].append(position)
    repeated = []
    for positions in groups.values():
        kept: list[int] = []
        for position in positions:
            if kept and (_overlaps(annotated.boxes[position], annotated.boxes[kept]) >= TWIN_IOU).any():
                repeated.append(position)
            else:
                kept.append(position)
    return sorted(repeated)


def _outside(annotated: AnnotatedSplit) -> list[Finding]:
    boxes, sizes, total = annotated.boxes, annotated.image_sizes, len(annotated.boxes)
    outside = outside_boxes(annotated)
    # Pixels beyond the image, the farthest side of every box.
    excess = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes).max(1, initial=0)
    partly = ~outside & ~empty_boxes(annotated) & (excess > _TOLERANCE)
    by_excess = np.argsort(-excess, kind='stable')

    def detail(position: int) -> str:
        return f'{excess[position]:.0f} pixels beyond the image; {_numbers(annotated, position)}'

    message = f'{part_of(int(outside.sum()), total, "box")} outside their image; training drops them.'
    findings = annotated.box_finding('outside', by_excess[outside[by_excess]], message, detail)
    message = f'{part_of(int(partly.sum()), total, "box")} reaching beyond their image by more than a pixel.'
    return findings + annotated.box_finding('partly_outside', by_excess[partly[by_excess]], message, detail)


def _ends_beyond(annotated: AnnotatedSplit) -> np.ndarray:
    begin, end = annotated.boxes[:, :2], annotated.boxes[:, :2] + annotated.boxes[:, 2:]
    inside = np.all(begin < annotated.image_sizes, axis=1)
    return inside & np.any(end > annotated.image_sizes + _TOLERANCE, axis=1)


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a box with others, (K,); 1 for equal boxes without area."""
    begin, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    common = np.clip(end - begin, 0, None).prod(1)
    union = box[2:].prod() + others[:, 2:].prod(1) - common
    equal = (others == box).all(1)
    return np.where(equal, 1.0, common / np.where(union > 0, union, 1.0))


def _numbers(annotated: AnnotatedSplit, position: int) -> str:
    box = ', '.join(f'{value:g}' for value in annotated.boxes[position])
    width, height = annotated.image_sizes[position]
    return f'[{box}] in {width:g}x{height:g}'
