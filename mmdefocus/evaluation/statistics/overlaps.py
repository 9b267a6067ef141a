"""What every predicted box overlaps, and what is near it.

Shapes:
    G true objects, P predictions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from .detection_arrays import DetectionArrays


@dataclass(frozen=True)
class Overlaps:
    """The objects that every prediction overlaps most, crowds left out.

    Attributes:
        same_object: Object of the same class with the largest IoU, -1 without an overlap, (P,) int64.
        same_iou: That IoU, (P,) float64.
        other_object: Object of another class with the largest IoU, -1 without an overlap, (P,) int64.
        other_iou: That IoU, (P,) float64.
        object_neighbours: Number of other objects of the image that overlap or whose distance is smaller than the
            square root of the area of the object's box, (G,) int64.
        neighbours: The same for every prediction. The object that it overlaps most, with an IoU from 0.1, is not a
            neighbour: it is what the prediction is for, (P,) int64.
    """

    same_object: np.ndarray
    same_iou: np.ndarray
    other_object: np.ndarray
    other_iou: np.ndarray
    object_neighbours: np.ndarray
    neighbours: np.ndarray


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes ``[x, y, w, h]``, (D, 4) and (G, 4), as COCO's evaluation computes it, (D, G) float64."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return mask.iou(boxes, others, [0] * len(others))


def find_overlaps(detections: DetectionArrays, background: float = 0.1) -> Overlaps:
    """Compare every prediction with the objects of its image."""
    d = detections
    same_object, other_object = (np.full(len(d.score), -1) for _ in range(2))
    same_iou, other_iou = (np.zeros(len(d.score)) for _ in range(2))
    object_neighbours, neighbours = np.zeros(len(d.object_box), dtype=int), np.zeros(len(d.score), dtype=int)
    for objects, found in by_image(d):
        near = _is_near(d.object_box[objects], d.object_box[objects])
        np.fill_diagonal(near, False)
        object_neighbours[objects] = near.sum(axis=1)
        if not len(objects) or not len(found):
            continue
        iou = box_iou(d.box[found], d.object_box[objects])
        same = d.label[found, None] == d.object_label[objects]
        for best_object, best_iou, where in ((same_object, same_iou, same), (other_object, other_iou, ~same)):
            masked = np.where(where, iou, 0)
            best = masked.argmax(axis=1)
            best_iou[found] = masked.max(axis=1)
            best_object[found] = np.where(best_iou[found] > 0, objects[best], -1)
        near = _is_near(d.box[found], d.object_box[objects])
        is_for_one = iou.max(axis=1) >= background
        near[is_for_one, iou.argmax(axis=1)[is_for_one]] = False
        neighbours[found] = near.sum(axis=1)
    return Overlaps(same_object, same_iou, other_object, other_iou, object_neighbours, neighbours)


def by_image(detections: DetectionArrays) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the objects without crowds and the predictions of every image, the latter by descending score."""
    objects = np.flatnonzero(~detections.object_crowd)
    objects = objects[np.argsort(detections.object_image[objects], kind='stable')]
    found = np.argsort(detections.image, kind='stable')
    images = np.arange(len(detections.image_ids) + 1)
    object_ends = np.searchsorted(detections.object_image[objects], images)
    ends = np.searchsorted(detections.image[found], images)
    for image in images[:-1]:
        yield objects[object_ends[image] : object_ends[image + 1]], found[ends[image] : ends[image + 1]]


def _is_near(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether the boxes overlap or are nearer than the first one's size, (D, 4) and (G, 4) to (D, G) bool."""
    start, end = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    other_start, other_end = others[None, :, :2], others[None, :, :2] + others[None, :, 2:]
    gap = np.maximum(np.maximum(other_start - end, start - other_end), 0)
    distance = np.hypot(gap[..., 0], gap[..., 1])
    return (distance < np.sqrt(np.abs(boxes[:, 2] * boxes[:, 3]))[:, None]) | (distance == 0)
