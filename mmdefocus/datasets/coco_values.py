"""Checks of individual values in COCO-format annotations."""

import math
import posixpath
import reprlib
from collections.abc import Sequence
from typing import Any

from mmdefocus.datasets.errors import DataError

# OpenCV reads no image with a longer side.
_LONGEST_SIDE = 2**20
# COCO's evaluation ignores boxes with a larger area.
_LARGEST_AREA = 1e10


def check_ids(name: str, kind: str, key: str, entries: Sequence[dict[str, Any]]) -> None:
    """Raise ``DataError`` unless the ids under ``key`` are all whole numbers, or all strings."""
    for position, entry in enumerate(entries):
        value = entry[key]
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not (whole or isinstance(value, str)):
            raise DataError(
                f'{name}: the {key} of {kind} {position} must be a whole number or a string, got {value!r}; '
                'number the entries'
            )
    strings = [entry[key] for entry in entries if isinstance(entry[key], str)]
    if 0 < len(strings) < len(entries):
        number = next(entry[key] for entry in entries if not isinstance(entry[key], str))
        raise DataError(
            f'{name}: the {key} of some {kind} entries is a string ({strings[0]!r}) and of others a number '
            f'({number!r}); write all of them in one way'
        )


def check_images(name: str, images: Sequence[dict[str, Any]]) -> None:
    """Raise ``DataError`` unless every image has a distinct file name and a size in whole pixels."""
    ids: dict[str, Any] = {}
    for image in images:
        file_name = image['file_name']
        if not isinstance(file_name, str) or not file_name:
            raise DataError(
                f'{name}: the file_name of image {image["id"]!r} must be a string that is not empty, got {file_name!r}'
                '; write the path of the file below data_prefix'
            )
        for key in ('width', 'height'):
            value = image[key]
            if not is_number(value) or value != int(value) or not 1 <= value <= _LONGEST_SIDE:
                raise DataError(
                    f'{name}: the {key} of image {image["id"]!r} ({file_name!r}) must be a whole number of pixels from '
                    f'1 to {_LONGEST_SIDE}, got {value!r}; write the size of the image file'
                )
        path = posixpath.normpath(file_name)
        if path in ids:
            raise DataError(
                f'{name}: images {ids[path]!r} and {image["id"]!r} are the same file {file_name!r}; list it once, with '
                'all its annotations (RepeatDataset and ClassBalancedDataset show images more often)'
            )
        ids[path] = image['id']


def check_category_names(name: str, categories: Sequence[dict[str, Any]]) -> None:
    """Raise ``DataError`` unless the name of every category is a string that is not empty."""
    for category in categories:
        if category['name'] == '':
            raise DataError(
                f"{name}: the name of category {category['id']!r} must not be empty, got ''; name it in the file"
            )
        if not isinstance(category['name'], str):
            raise DataError(
                f'{name}: the name of category {category["id"]!r} must be a string, got {category["name"]!r}; write '
                f'"{category["name"]}" with quotes in the file'
            )


def check_boxes(name: str, annotations: Sequence[dict[str, Any]]) -> None:
    """Raise ``DataError`` unless box, area and flags of every annotation have valid values."""
    for ann in annotations:
        box = ann['bbox']
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
            raise DataError(
                f'{name}: the bbox of annotation {ann["id"]!r} must be [x, y, width, height] in pixels, four finite '
                f'numbers, got {reprlib.repr(box)}; correct the annotation or remove it'
            )
        if max(map(abs, box)) > _LONGEST_SIDE:
            raise DataError(
                f'{name}: the bbox of annotation {ann["id"]!r} must be in pixels, from -{_LONGEST_SIDE} to '
                f'{_LONGEST_SIDE}, got {box!r}; correct the annotation or remove it'
            )
        if not is_number(ann['area']) or ann['area'] > _LARGEST_AREA:
            raise DataError(
                f'{name}: the area of annotation {ann["id"]!r} must be a finite number up to {_LARGEST_AREA:g}, got '
                f'{ann["area"]!r}; write the width times the height of the box'
            )
        for key in ('iscrowd', 'ignore'):
            if ann.get(key, 0) not in (0, 1):
                raise DataError(
                    f'{name}: {key} of annotation {ann["id"]!r} must be 0 or 1, without quotes, got {ann[key]!r}; '
                    'write 0 for a single object'
                )


def check_box_format(name: str, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> int:
    """Detect boxes written as two corners instead of a corner and a size.

    Good annotations have few boxes that reach beyond their image by more than a pixel. If more than half of the boxes
    do, and nine in ten lie inside their image when read as two corners, they are corners.

    Returns:
        Number of boxes that begin inside their image and end more than a pixel beyond its right or lower edge.

    Raises:
        DataError: The boxes look like ``[x1, y1, x2, y2]``.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    beyond, corners = [], 0
    for ann in annotations:
        (x, y, w, h), (width, height) = ann['bbox'], sizes[ann['image_id']]
        if x < width and y < height and (x + w > width + 1 or y + h > height + 1):
            beyond.append(ann)
        corners += x < w <= width + 1 and y < h <= height + 1
    if are_corners(len(beyond), corners, len(annotations)):
        example = beyond[0]
        x, y, w, h = example['bbox']
        raise DataError(
            f'{name}: {len(beyond)} of {len(annotations)} boxes reach beyond their image, but would lie inside if they '
            'were [x1, y1, x2, y2]. COCO format has [x, y, width, height]: write [x1, y1, x2 - x1, y2 - y1] (for '
            f'annotation {example["id"]!r}, {[x, y, w - x, h - y]} instead of {example["bbox"]}), and areas accordingly'
        )
    return len(beyond)


def are_corners(beyond: int, inside_as_corners: int, total: int) -> bool:
    """Return True if boxes are most likely written as two corners.

    Args:
        beyond: Boxes that begin inside their image and end more than a pixel beyond its right or lower edge.
        inside_as_corners: Boxes that lie inside their image when read as two corners.
        total: All boxes.
    """
    return 2 * beyond > total and 10 * inside_as_corners >= 9 * total


def is_degenerate(ann: dict[str, Any], width: float, height: float) -> bool:
    """Return True if MMDetection drops this box: a side below one pixel, no area, or outside the image."""
    x, y, w, h = ann['bbox']
    inside_w = min(x + w, width) - max(x, 0)
    inside_h = min(y + h, height) - max(y, 0)
    return w < 1 or h < 1 or ann['area'] <= 0 or inside_w <= 0 or inside_h <= 0


def is_number(value: Any) -> bool:
    """Return True for a finite number that is not a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
