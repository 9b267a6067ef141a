"""Repairs of a split that concern its images, ids and references. Each returns new content and what it counted."""

import os
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np

from mmdefocus.datasets.errors import DataError

from .annotated_split import AnnotatedSplit, is_box, is_id
from .entry_checks import invalid_values
from .image_checks import rotation_kind

Repaired = tuple[dict[str, Any], int]


def drop_images(annotated: AnnotatedSplit, paths: Collection[str]) -> Repaired:
    """Drop images by path, with their annotations; count the images."""
    content = annotated.split.content
    dropped = {image['id'] for image in annotated.images if annotated.path(image) in paths}
    images = [image for image in content['images'] if _id(image) not in dropped]
    annotations = [ann for ann in content.get('annotations', []) if _image_id(ann) not in dropped]
    return content | dict(images=images, annotations=annotations), len(content['images']) - len(images)


def drop_unreadable(annotated: AnnotatedSplit) -> Repaired:
    """Drop the images whose files cannot be used; count them."""
    return drop_images(annotated, {path for path, facts in annotated.facts.items() if facts.problem is not None})


def take_sizes(annotated: AnnotatedSplit) -> Repaired:
    """Give images the size of their files, except where the boxes are for the stored orientation; count them."""
    images, count = [], 0
    for image in annotated.split.content['images']:
        size = _file_size(annotated, image)
        if size is not None:
            count += 1
            image = image | dict(width=size[0], height=size[1])
        images.append(image)
    return annotated.split.content | dict(images=images), count


def _file_size(annotated: AnnotatedSplit, image: Any) -> tuple[int, int] | None:
    """Return the size of the file if that of the entry is wrong."""
    if not isinstance(image, dict) or not isinstance(image.get('file_name'), str):
        return None
    facts, entry = annotated.path_facts(image), (image.get('width'), image.get('height'))
    return facts.size if entry != facts.size and rotation_kind(entry, facts) is None else None


def turn_boxes(annotated: AnnotatedSplit) -> Repaired:
    """Turn boxes and polygons for the stored orientation as the loader turns the images; count the images.

    Raises:
        DataError: A mask is not a polygon.
    """
    content, turned, images = annotated.split.content, {}, []
    for image in content['images']:
        if _id(image) in annotated.images_by_id:
            facts, entry = annotated.path_facts(image), (image.get('width'), image.get('height'))
            if facts.size is not None and rotation_kind(entry, facts) == 'rotated_boxes':
                turned[image['id']] = facts.orientation, *facts.size[::-1]
                image = image | dict(width=facts.size[0], height=facts.size[1])
        images.append(image)
    annotations = [
        _turn_annotation(ann, *turned[_image_id(ann)]) if _image_id(ann) in turned else ann
        for ann in content.get('annotations', [])
    ]
    return content | dict(images=images, annotations=annotations), len(turned)


def _turn_annotation(ann: dict[str, Any], orientation: int, width: float, height: float) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if is_box(ann.get('bbox')):
        x, y, w, h = ann['bbox']
        a, b = (_turn_point(*point, orientation, width, height) for point in ((x, y), (x + w, y + h)))
        changed['bbox'] = [min(a[0], b[0]), min(a[1], b[1]), h, w]
    masks = ann.get('segmentation')
    if masks:
        if not isinstance(masks, list):
            raise DataError(
                f'annotation {ann.get("id")!r} has a mask that is not a polygon, which the repair "orientation" does '
                'not turn; save the images without EXIF orientation instead'
            )
        changed['segmentation'] = [
            [
                value
                for point in zip(polygon[::2], polygon[1::2], strict=True)
                for value in _turn_point(*point, orientation, width, height)
            ]
            for polygon in masks
        ]
    return ann | changed


def _turn_point(x: float, y: float, orientation: int, width: float, height: float) -> tuple[float, float]:
    """Return a point of the stored image of this size in the upright one; orientations 5 to 8 exchange the sides."""
    return (y if orientation in (5, 8) else height - y, x if orientation in (5, 6) else width - x)


def merge_images(annotated: AnnotatedSplit) -> Repaired:
    """Keep one entry per image file, with the annotations of all of its entries; count the entries dropped.

    Raises:
        DataError: The entries of a file have different labels.
    """
    content, entries = annotated.split.content, defaultdict(list)
    kept: dict[Any, Any] = {}
    for image in annotated.images:
        entries[os.path.normpath(annotated.path(image))].append(image)
    for path, same in entries.items():
        if len({repr(image.get('category_id')) for image in same}) > 1:
            raise DataError(f'{path!r} is listed with different labels; expected one: correct the entries')
        kept |= {image['id']: same[0]['id'] for image in same}
    images = [image for image in content['images'] if kept.get(_id(image), _id(image)) == _id(image)]
    annotations = [
        ann | dict(image_id=kept[_image_id(ann)]) if _image_id(ann) in kept else ann
        for ann in content.get('annotations', [])
    ]
    return content | dict(images=images, annotations=annotations), len(content['images']) - len(images)


def drop_strays(annotated: AnnotatedSplit) -> Repaired:
    """Drop annotations of unknown images; count them."""
    strays = [ann for ann in annotated.annotations if ann['image_id'] not in annotated.images_by_id]
    return _without(annotated, strays)


def drop_invalid(annotated: AnnotatedSplit) -> Repaired:
    """Drop annotations whose box is not four finite numbers; count them."""
    return _without(annotated, [ann for ann in annotated.annotations if not is_box(ann.get('bbox'))])


def correct_areas(annotated: AnnotatedSplit) -> Repaired:
    """Replace wrong values of area and iscrowd; count the annotations."""
    annotations, count = [], 0
    for ann in annotated.split.content.get('annotations', []):
        if isinstance(ann, dict) and is_box(ann.get('bbox')) and (wrong := invalid_values(ann)):
            ann = complete_annotation({key: value for key, value in ann.items() if key not in wrong})
            count += 1
        annotations.append(ann)
    return annotated.split.content | dict(annotations=annotations), count


def complete_annotation(ann: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation with area and iscrowd: its own values, else the area of the polygons or the box, and 0.

    Args:
        ann: Annotation whose box is four finite numbers.
    """
    polygons = ann.get('segmentation')
    is_polygons = isinstance(polygons, list) and polygons and all(len(polygon) >= 6 for polygon in polygons)
    area = sum(map(_polygon_area, polygons)) if is_polygons else ann['bbox'][2] * ann['bbox'][3]  # type: ignore[arg-type]
    return dict(area=area, iscrowd=0) | ann


def _polygon_area(polygon: list[float]) -> float:
    x, y = np.array(polygon[::2], np.float64), np.array(polygon[1::2], np.float64)
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def number_annotations(annotated: AnnotatedSplit) -> Repaired:
    """Number all annotations from 1 on if two have the same id, or one has none; count them."""
    annotations = annotated.split.content.get('annotations', [])
    ids = [ann.get('id') for ann in annotated.annotations]
    if None not in ids and len(set(map(repr, ids))) == len(ids):
        return annotated.split.content, 0
    numbered = [ann | dict(id=number) for number, ann in enumerate(annotations, 1)]
    return annotated.split.content | dict(annotations=numbered), len(numbered)


def _without(annotated: AnnotatedSplit, dropped: list[dict[str, Any]]) -> Repaired:
    identities = set(map(id, dropped))
    annotations = [ann for ann in annotated.split.content.get('annotations', []) if id(ann) not in identities]
    return annotated.split.content | dict(annotations=annotations), len(dropped)


def _id(entry: Any, key: str = 'id') -> Any:
    """Return an id of an entry; None for what is no entry or cannot be an id."""
    return entry[key] if isinstance(entry, dict) and is_id(entry.get(key)) else None


def _image_id(ann: Any) -> Any:
    return _id(ann, 'image_id')
