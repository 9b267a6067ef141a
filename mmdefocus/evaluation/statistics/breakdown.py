"""How well objects of different kinds are found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .average_precision import mean_average_precision
from .detection_arrays import DetectionArrays
from .overlaps import Overlaps


@dataclass(frozen=True)
class Group:
    """Objects that have something in common.

    Attributes:
        name: What they have in common.
        lowest: Smallest value of the property, included.
        highest: Largest value, excluded; None without a limit.
        objects: Number of objects, without crowds.
        found: Number of them that are found from the best common threshold on.
        recall: found / objects; None without an object.
        false_positives: Number of wrong predictions from that threshold on whose boxes have the property.
        average_precision: AP at the IoU of a match over all scores: other objects and predictions that match them do
            not count, and a prediction without a match counts in the group of its own box. None without an object.
    """

    name: str
    lowest: float
    highest: float | None
    objects: int
    found: int
    recall: float | None
    false_positives: int
    average_precision: float | None


@dataclass(frozen=True)
class Breakdown:
    """Objects by several properties.

    Attributes:
        size: By area in square pixels, with COCO's limits 32² and 96².
        size_quartile: By area, a quarter of the objects of this set in each group.
        crowding: By the number of other objects that overlap or whose distance is smaller than the square root of the
            area of the object's box.
        aspect_ratio: By width / height.
        objects_in_image: By the number of objects in the image.
    """

    size: tuple[Group, ...]
    size_quartile: tuple[Group, ...]
    crowding: tuple[Group, ...]
    aspect_ratio: tuple[Group, ...]
    objects_in_image: tuple[Group, ...]


def break_down(detections: DetectionArrays, overlaps: Overlaps, matched: np.ndarray, threshold: float) -> Breakdown:
    """Compare objects by size, crowding, shape and number in the image.

    Args:
        detections: Objects and predictions.
        overlaps: What the predictions overlap.
        matched: Matched object of every prediction, also a crowd, -1 without one, (P,) int.
        threshold: Predictions from this score on find objects.
    """
    d = detections
    in_image = np.bincount(d.object_image[~d.object_crowd], minlength=len(d.image_ids))
    areas = d.object_area[~d.object_crowd]
    quartiles = np.quantile(areas, (0.25, 0.5, 0.75)).tolist() if len(areas) else [0, 0, 0]
    split = partial(_split, d, matched, threshold)
    return Breakdown(
        size=split(d.object_area, d.area, (32**2, 96**2), ('small', 'medium', 'large')),
        size_quartile=split(
            d.object_area, d.area, quartiles, ('smallest quarter', 'second quarter', 'third quarter', 'largest quarter')
        ),
        crowding=split(overlaps.object_neighbours, overlaps.neighbours, (1, 2, 4), ('0', '1', '2 to 3', '4 or more')),
        aspect_ratio=split(
            _ratio(d.object_box),
            _ratio(d.box),
            (1 / 3, 2 / 3, 3 / 2, 3),
            ('very tall', 'tall', 'square', 'wide', 'very wide'),
        ),
        objects_in_image=split(
            in_image[d.object_image], in_image[d.image], (1, 2, 5, 10), ('0', '1', '2 to 4', '5 to 9', '10 or more')
        ),
    )


def _split(
    d: DetectionArrays,
    matched: np.ndarray,
    threshold: float,
    object_value: np.ndarray,
    value: np.ndarray,
    limits: Sequence[float],
    names: Sequence[str],
) -> tuple[Group, ...]:
    """Return the groups between the limits; the first one starts at 0."""
    object_group, own_group = (np.digitize(values, limits) for values in (object_value, value))
    # A prediction that matches an object is in the group of the object, or in none if that is a crowd.
    group_of = np.append(np.where(d.object_crowd, -1, object_group), -1)
    group = np.where(matched >= 0, group_of[matched], own_group)
    shown, correct = d.score >= threshold, matched >= 0
    lows, highs = (0.0, *map(float, limits)), (*map(float, limits), None)
    groups = []
    for number, name in enumerate(names):
        own = group == number
        counts = np.bincount(d.object_label[group_of[:-1] == number], minlength=len(d.classes))
        objects, found = int(counts.sum()), int((own & correct & shown).sum())
        groups.append(
            Group(
                name=name,
                lowest=lows[number],
                highest=highs[number],
                objects=objects,
                found=found,
                recall=found / objects if objects else None,
                false_positives=int((own & ~correct & shown).sum()),
                average_precision=mean_average_precision(d.label[own], d.score[own], correct[own], counts)
                if objects
                else None,
            )
        )
    return tuple(groups)


def _ratio(boxes: np.ndarray) -> np.ndarray:
    """Return width / height; boxes without a height are infinitely wide."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(boxes[:, 3] > 0, boxes[:, 2] / boxes[:, 3], np.inf)
