"""Checks of the masks in COCO-format annotations, for data sets that load them."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose

from mmdefocus.datasets.coco_values import is_number
from mmdefocus.datasets.errors import DataError

_FORM = 'polygons [[x1, y1, x2, y2, ...], ...] in pixels, or run lengths with size [height, width] and counts'


def loads_masks(pipeline: Compose) -> bool:
    """Return True if a transform, possibly inside others, loads masks."""
    return any(_loads_masks(step) for step in pipeline.transforms)


def _loads_masks(step: Any) -> bool:
    if isinstance(step, Compose | Sequence) and not isinstance(step, str):
        return any(map(_loads_masks, step.transforms if isinstance(step, Compose) else step))
    inner = getattr(step, 'transforms', ()) if isinstance(step, BaseTransform) else ()
    return bool(getattr(step, 'with_mask', False)) or _loads_masks(tuple(inner))


def check_masks(name: str, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Check the masks of annotations of which each needs one.

    Args:
        name: Name of the file in messages.
        images: Images of the file.
        annotations: Annotations that are trained on or evaluated.

    Returns:
        The ids of annotations without a polygon of three points, which MMDetection does not train on.

    Raises:
        DataError: An annotation has no mask, or one that is neither a list of polygons nor run lengths of its image.
    """
    missing = [ann['id'] for ann in annotations if not ann.get('segmentation')]
    if missing:
        raise DataError(
            f'{name}: {len(missing)} of {len(annotations)} boxes have no segmentation (the first is annotation '
            f'{missing[0]!r}), and the pipeline loads masks (LoadAnnotations with with_mask=True); expected {_FORM}: '
            'export the annotations with masks, or train a detector without masks'
        )
    sizes = {image['id']: [image['height'], image['width']] for image in images}
    for ann in annotations:
        mask, size = ann['segmentation'], sizes[ann['image_id']]
        if not (_are_run_lengths(mask, size) if isinstance(mask, dict) else _are_polygons(mask)):
            raise DataError(
                f'{name}: the segmentation of annotation {ann["id"]!r} must be {_FORM} (of its image: {size}), got '
                f'{reprlib.repr(mask)}; correct the annotation or remove it'
            )
    return [
        ann['id']
        for ann in annotations
        if isinstance(ann['segmentation'], list) and not any(map(_is_area, ann['segmentation']))
    ]


def _are_polygons(mask: Any) -> bool:
    return isinstance(mask, list) and all(isinstance(part, list) and all(map(is_number, part)) for part in mask)


def _is_area(polygon: Sequence[float]) -> bool:
    return len(polygon) >= 6 and len(polygon) % 2 == 0


def _are_run_lengths(mask: Mapping[str, Any], size: list[int]) -> bool:
    counts = mask.get('counts')
    if mask.get('size') != size:
        return False
    if isinstance(counts, list):  # pycocotools reads beyond its memory if they do not add up
        whole = all(isinstance(count, int) and count >= 0 for count in counts)
        return whole and sum(counts) == size[0] * size[1]
    return isinstance(counts, str) and bool(counts)
