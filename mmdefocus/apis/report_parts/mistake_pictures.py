"""Pictures of mistakes: a part of the image with the true and the predicted box."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv
from PIL import Image, ImageOps

from mmdefocus.evaluation.statistics import DrawnBox, FalseNegative, FalsePositive
from mmdefocus.pages import Pictures, Text

_TRUE, _PREDICTED = sv.Color.from_hex('#009e73'), sv.Color.from_hex('#d55e00')
_CONTEXT = 0.8  # of the larger side of the boxes, at every side
_SMALLEST, _LARGEST = 48, 480  # pixels of the image, and of the picture
LEGEND = 'True boxes are green with round corners, predicted boxes are orange with square corners.'

ERRORS = {
    'classification': 'wrong class',
    'localisation': 'imprecise box',
    'both': 'wrong class and imprecise box',
    'duplicate': 'second box for one object',
    'background': 'nothing there',
}
REASONS = {
    'score': 'found, but below the threshold',
    'class': 'taken for another class',
    'localisation': 'box too imprecise',
    'both': 'taken for another class, with an imprecise box',
    'taken': 'its box counts for another object',
    'nothing': 'nothing predicted there',
}


def false_positive_pictures(found: Sequence[FalsePositive], paths: Mapping[Any, Path]) -> Pictures | Text:
    """Draw wrong predictions."""
    if not found:
        return Text('No prediction is wrong.', 'good')
    pictures = []
    for one in found:
        truth = f' The true object is {one.truth.category}.' if one.truth else ''
        what = f'Predicted {one.prediction.category} with score {one.prediction.score:.2f}: {ERRORS[one.error]}.'
        pictures.append((_draw(paths[one.image_id], one.truth, one.prediction), f'{what}{truth} {one.file_name}'))
    return Pictures(pictures)


def false_negative_pictures(found: Sequence[FalseNegative], paths: Mapping[Any, Path]) -> Pictures | Text:
    """Draw objects that are not found."""
    if not found:
        return Text('No object is missed.', 'good')
    pictures = []
    for one in found:
        near = one.prediction
        taken = f' Nearest prediction: {near.category}, score {near.score:.2f}.' if near else ''
        what = f'Missed {one.truth.category}: {REASONS[one.reason]}.'
        pictures.append((_draw(paths[one.image_id], one.truth, near), f'{what}{taken} {one.file_name}'))
    return Pictures(pictures)


def _draw(path: Path, truth: DrawnBox | None, prediction: DrawnBox | None) -> np.ndarray | Path:
    """Cut the boxes with their surroundings out of an image; return the path of an image that cannot be read."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert('RGB')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return path  # the page says why it cannot be read
    boxes = np.array([_corners(box) for box in (truth, prediction) if box])
    (left, top), (right, bottom) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    side = max(_SMALLEST, (1 + 2 * _CONTEXT) * max(right - left, bottom - top))
    centre = np.array([(left + right) / 2, (top + bottom) / 2])
    size = np.array(image.size)
    extent = np.minimum(np.ceil(side), size).astype(int)
    start = np.clip(np.floor(centre - side / 2).astype(int), 0, size - extent)
    end = start + extent
    part = image.crop((*start, *end))
    factor = _LARGEST / max(part.size)
    shape = [max(1, round(length * factor)) for length in part.size]
    scene = np.array(part.resize((shape[0], shape[1]), Image.Resampling.BICUBIC))[..., ::-1].copy()  # OpenCV's order
    for box, colour in ((truth, _TRUE), (prediction, _PREDICTED)):
        if box:
            scene = _annotate(scene, box, colour, start, factor, is_true=colour is _TRUE)
    return scene[..., ::-1].copy()


def _annotate(
    scene: np.ndarray, box: DrawnBox, colour: sv.Color, start: np.ndarray, factor: float, is_true: bool
) -> np.ndarray:
    corners = ((_corners(box).reshape(2, 2) - start) * factor).reshape(1, 4)
    detections = sv.Detections(xyxy=corners, class_id=np.zeros(1, int))
    settings: dict[str, Any] = dict(color=colour, thickness=5)
    frame = sv.RoundBoxAnnotator(**settings) if is_true else sv.BoxAnnotator(**settings)
    text = f'true {box.category}' if is_true else f'{box.category} {box.score or 0:.2f}'
    place = sv.Position.TOP_LEFT if is_true else sv.Position.BOTTOM_LEFT
    # OpenCV's letters are ASCII only; the caption has the name in full.
    label = text.encode('ascii', 'replace').decode()
    scene = frame.annotate(scene, detections)
    return sv.LabelAnnotator(
        color=colour,
        text_color=sv.Color.BLACK,
        text_scale=1.0,
        text_thickness=2,
        text_padding=6,
        text_position=place,
        smart_position=True,
    ).annotate(scene, detections, labels=[label])


def _corners(box: DrawnBox) -> np.ndarray:
    x, y, width, height = box.box
    return np.array([x, y, x + width, y + height])
