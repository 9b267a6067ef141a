"""Examples of findings as pictures: the image with the boxes of its annotations and the one that is meant."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import supervision as sv
from PIL import Image, ImageOps

from mmdefocus.datasets.inspection import Example, Finding
from mmdefocus.datasets.inspection.annotated_split import is_box
from mmdefocus.datasets.inspection.report_text import short_detail
from mmdefocus.datasets.prepared.source_data import SourceData

# Vermilion and sky blue of Okabe and Ito differ for all colour vision, and so does the width of the lines.
_MEANT, _OTHERS = '#d55e00', '#56b4e9'
LONGEST = 320  # pixels
_MOST_OTHERS = 200
Boxes = Mapping[str, Sequence[Sequence[float]]]


def boxes_by_image(source: SourceData) -> dict[str, list[list[float]]]:
    """Return the boxes ``x, y, w, h`` of every image of a detection set, by the path of its file."""
    boxes: dict[str, list[list[float]]] = {}
    for split in source.splits.values():
        paths = {
            repr(image.get('id')): os.fspath(split.image_root / image['file_name'])
            for image in split.content['images']
            if isinstance(image, dict) and isinstance(image.get('file_name'), str)
        }
        for ann in split.content.get('annotations', []):
            path = paths.get(repr(ann.get('image_id'))) if isinstance(ann, dict) else None
            if path is not None and is_box(ann.get('bbox')):
                boxes.setdefault(path, []).append(ann['bbox'])
    return boxes


def draw_examples(finding: Finding, boxes: Boxes, root: str) -> tuple[list[tuple[np.ndarray, str]], list[Example]]:
    """Draw the examples of a finding whose images can be read, with sides of at most 320 pixels.

    Args:
        finding: The finding.
        boxes: Result of :func:`boxes_by_image`.
        root: Folder to which the captions are relative.

    Returns:
        Pictures, uint8 RGB of shape (height, width, 3), with their captions, and the examples that are not drawn.
    """
    pictures, others = [], []
    for example in finding.examples:
        pixels = draw_example(example, boxes.get(example.image, ()), finding.kind == 'rotated_boxes')
        if pixels is None:
            others.append(example)
        else:
            name = os.path.relpath(example.image, root)
            meant = '' if example.annotation is None else f', annotation {example.annotation}'
            pictures.append((pixels, f'{name}{meant}: {short_detail(example, root)}'))
    return pictures, others


def draw_example(example: Example, others: Sequence[Sequence[float]], as_stored: bool = False) -> np.ndarray | None:
    """Draw one example; None if it has no image that can be read.

    Boxes that reach beyond the image are drawn on a grey margin.

    Args:
        example: The example.
        others: Boxes ``x, y, w, h`` of the image.
        as_stored: Show the picture as it is stored, without turning it upright.
    """
    if not example.image:
        return None
    try:
        with Image.open(example.image) as opened:
            upright = opened if as_stored else ImageOps.exif_transpose(opened)
            size = upright.size
            upright.thumbnail((LONGEST, LONGEST))
            image = upright.convert('RGB')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    scale = image.width / size[0]
    meant = [list(example.box)] if example.box is not None and is_box(example.box) else []
    shown = [list(box) for box in others[:_MOST_OTHERS] if tuple(box) != example.box]
    image, corner = _with_margin(image, [*shown, *meant], scale)
    pixels = np.ascontiguousarray(image)
    pixels = _draw(pixels, shown, scale, corner, _OTHERS, 1)
    return _draw(pixels, meant, scale, corner, _MEANT, 3)


def _with_margin(
    image: Image.Image, boxes: Sequence[Sequence[float]], scale: float
) -> tuple[Image.Image, tuple[float, float]]:
    """Extend an image by at most half its size where boxes reach beyond it; return it and the corner of the old one."""
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float64).reshape(-1, 4) * scale
    if not len(corners) or not np.isfinite(corners).all():
        return image, (0, 0)
    width, height = image.size
    left, top = (
        int(np.clip(np.ceil(-corners[:, axis].min()), 0, side // 2)) for axis, side in ((0, width), (1, height))
    )
    right, bottom = (
        int(np.clip(np.ceil(corners[:, 2 + axis].max() - side), 0, side // 2))
        for axis, side in ((0, width), (1, height))
    )
    if not left + top + right + bottom:
        return image, (0, 0)
    extended = Image.new('RGB', (width + left + right, height + top + bottom), (128, 128, 128))
    extended.paste(image, (left, top))
    return extended, (left, top)


def _draw(
    pixels: np.ndarray,
    boxes: Sequence[Sequence[float]],
    scale: float,
    corner: tuple[float, float],
    colour: str,
    thickness: int,
) -> np.ndarray:
    if not boxes:
        return pixels
    xyxy = np.array([[x, y, x + max(w, 0), y + max(h, 0)] for x, y, w, h in boxes], np.float64) * scale
    height, width = pixels.shape[:2]
    # Lines at the rim of the picture show where a box continues.
    limit = np.array([width - 1, height - 1] * 2)
    xyxy = np.clip(xyxy + np.array(corner * 2), 0, limit)
    annotator = sv.BoxAnnotator(sv.Color.from_hex(colour), thickness)
    # The annotator expects BGR, which it and these colours only pass on.
    drawn = annotator.annotate(pixels[..., ::-1].copy(), sv.Detections(xyxy, class_id=np.zeros(len(xyxy), int)))
    return drawn[..., ::-1]
