"""True objects and predictions of a detector as arrays.

Shapes:
    N images, C classes, G true objects (crowds included), P predictions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DetectionArrays:
    """True objects and predictions; boxes are ``[x, y, w, h]`` in pixels.

    Attributes:
        classes: Names in the order of the annotation file, C.
        category_ids: Their ids, C.
        image_ids: Ids in the order in which pycocotools sorts them, N.
        file_names: File names of the images, N; empty text where the file names none.
        object_image: Position of the image of every object, (G,) int64.
        object_label: Position of its class, (G,) int64.
        object_box: Its box, (G, 4) float64.
        object_area: Its ``area``, or else that of its box, in square pixels, (G,) float64.
        object_crowd: It is a region with a crowd, (G,) bool.
        image: Position of the image of every prediction, (P,) int64. Predictions descend by score; of equal scores, the
            first image and then the first of the list comes first, as in COCO's evaluation.
        label: Position of its class, (P,) int64.
        box: Its box, (P, 4) float64.
        score: Its score, 0 to 1, (P,) float64.
    """

    classes: tuple[str, ...]
    category_ids: tuple[Any, ...]
    image_ids: tuple[Any, ...]
    file_names: tuple[str, ...]
    object_image: np.ndarray
    object_label: np.ndarray
    object_box: np.ndarray
    object_area: np.ndarray
    object_crowd: np.ndarray
    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray

    @property
    def area(self) -> np.ndarray:
        """Areas of the predicted boxes in square pixels, (P,)."""
        return self.box[:, 2] * self.box[:, 3]

    def count_objects(self) -> np.ndarray:
        """Return the number of objects of every class without crowds, (C,)."""
        return np.bincount(self.object_label[~self.object_crowd], minlength=len(self.classes))


def read_detections(truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> DetectionArrays:
    """Return annotations and results in COCO format as arrays.

    Args:
        truth: Content of an annotation file: ``images``, ``annotations`` and ``categories``. Ids are distinct numbers
            or texts. An ``annotation`` may lack ``area`` and ``iscrowd``.
        predictions: Dicts with ``image_id``, ``category_id``, ``bbox`` ``[x, y, w, h]`` and ``score``.

    Raises:
        ValueError: An id occurs twice or is unknown, a box has other than four finite numbers, or a score is not
            between 0 and 1.
    """
    images = sorted(truth['images'], key=lambda image: (isinstance(image['id'], str), image['id']))
    image_at = _positions([image['id'] for image in images], 'image')
    label_at = _positions([category['id'] for category in truth['categories']], 'category')
    annotations = list(truth.get('annotations', ()))
    object_image = _look_up(annotations, 'image_id', image_at, 'an annotation')
    object_box = _boxes(annotations, 'an annotation')
    image = _look_up(predictions, 'image_id', image_at, 'a prediction')
    score = np.array([one['score'] for one in predictions], dtype=np.float64)
    if not ((score >= 0) & (score <= 1)).all():
        wrong = score[~((score >= 0) & (score <= 1))][0]
        raise ValueError(f'scores of predictions must be between 0 and 1, got {wrong}')
    order = np.lexsort((np.arange(len(image)), image, -score))
    return DetectionArrays(
        classes=tuple(str(category['name']) for category in truth['categories']),
        category_ids=tuple(label_at),
        image_ids=tuple(image_at),
        file_names=tuple(str(one.get('file_name', '')) for one in images),
        object_image=object_image,
        object_label=_look_up(annotations, 'category_id', label_at, 'an annotation'),
        object_box=object_box,
        object_area=np.array(
            [ann.get('area', box[2] * box[3]) for ann, box in zip(annotations, object_box, strict=True)],
            dtype=np.float64,
        ),
        object_crowd=np.array([bool(ann.get('iscrowd', 0)) for ann in annotations], dtype=bool),
        image=image[order],
        label=_look_up(predictions, 'category_id', label_at, 'a prediction')[order],
        box=_boxes(predictions, 'a prediction')[order],
        score=score[order],
    )


def _positions(ids: list[Any], what: str) -> dict[Any, int]:
    positions = {one: position for position, one in enumerate(ids)}
    if len(positions) < len(ids):
        twice = next(one for position, one in enumerate(ids) if positions[one] != position)
        raise ValueError(f'the ids of the annotation file must be distinct, but the {what} id {twice!r} occurs twice')
    return positions


def _look_up(items: Sequence[Mapping], key: str, positions: Mapping[Any, int], what: str) -> np.ndarray:
    unknown = next((one[key] for one in items if one[key] not in positions), None)
    if unknown is not None:
        raise ValueError(f'{what} has the {key} {unknown!r}, which the annotation file does not list')
    return np.array([positions[one[key]] for one in items], dtype=np.int64)


def _boxes(items: Sequence[Mapping], what: str) -> np.ndarray:
    wrong = next((one['bbox'] for one in items if len(one['bbox']) != 4), None)
    boxes = np.array([] if wrong else [one['bbox'] for one in items], dtype=np.float64).reshape(-1, 4)
    if wrong is None and not np.isfinite(boxes).all():
        wrong = boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()
    if wrong is not None:
        raise ValueError(f'{what} must have a bbox [x, y, w, h] of finite numbers, got {list(wrong)}')
    return boxes
