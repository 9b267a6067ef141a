"""Checks of the objects against what a model can see and predict.

Shapes: N boxes of known images, as in :mod:`~mmdefocus.datasets.inspection.annotated_split`.
"""

from collections import Counter

import numpy as np

from .annotated_split import AnnotatedSplit, count_of, make_finding, part_of, share
from .box_checks import empty_boxes, has_corners, is_normalised
from .findings import Example, Finding, Severity

# A larger share of tiny objects lowers the mAP visibly.
_MANY_TINY = 0.05
_WHOLE = 0.95


def check_model_fit(
    annotated: AnnotatedSplit, stride: int, image_size: tuple[int, int], max_objects: int | None
) -> list[Finding]:
    """Report objects that are smaller than a cell of the finest feature map, boxes of whole images, and crowded images.

    Args:
        annotated: A split of a detection set.
        stride: Smallest stride of the model, in pixels.
        image_size: Width and height of the box into which test images are scaled.
        max_objects: Most objects that the model predicts per image; None if unknown.
    """
    if is_normalised(annotated) or has_corners(annotated):
        return []  # sizes have no meaning
    return [
        *_tiny(annotated, stride, image_size),
        *_whole_image(annotated),
        *([] if max_objects is None else _too_many(annotated, max_objects)),
    ]


def _tiny(annotated: AnnotatedSplit, stride: int, image_size: tuple[int, int]) -> list[Finding]:
    short = annotated.boxes[:, 2:].min(1, initial=np.inf) * _scale(annotated.image_sizes, image_size)
    is_object = ~empty_boxes(annotated)
    positions = np.flatnonzero(is_object & (short < stride))
    positions = positions[np.argsort(short[positions], kind='stable')]
    total = int(is_object.sum())
    totals = Counter(annotated.boxed[one]['category_id'] for one in np.flatnonzero(is_object))
    tiny = Counter(annotated.boxed[one]['category_id'] for one in positions)
    worst = sorted(tiny, key=lambda one: (-tiny[one] / totals[one], str(one)))[:5]
    classes = ', '.join(f'{annotated.name(one)} {share(tiny[one], totals[one])}' for one in worst)
    message = (
        f'{part_of(len(positions), total, "object")} with a short side below {stride} pixels, the '
        f'smallest stride, in test images of {image_size[0]}x{image_size[1]}; by class: {classes}.'
    )
    severity: Severity = 'warning' if len(positions) > _MANY_TINY * total else 'note'
    return annotated.box_finding(
        'tiny', positions, message, lambda one: f'short side {short[one]:.1f} pixels after scaling', severity=severity
    )


def _scale(sizes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the factor by which MMCV's ``Resize`` with ``keep_ratio`` scales the image of every box, (N,)."""
    return np.minimum(max(image_size) / sizes.max(1, initial=-np.inf), min(image_size) / sizes.min(1, initial=np.inf))


def _whole_image(annotated: AnnotatedSplit) -> list[Finding]:
    shares = annotated.boxes[:, 2:].prod(1) / annotated.image_sizes.prod(1)
    positions = np.flatnonzero(shares >= _WHOLE)
    message = f'{part_of(len(positions), len(shares), "box")} covering at least {_WHOLE:.0%} of their image.'
    return annotated.box_finding('whole_image', positions, message, lambda one: f'{shares[one]:.0%} of the image')


def _too_many(annotated: AnnotatedSplit, most: int) -> list[Finding]:
    counts = Counter(ann['image_id'] for ann in annotated.boxed if ann.get('iscrowd') != 1)
    crowded = sorted((key for key, count in counts.items() if count > most), key=lambda key: -counts[key])
    lost = sum(counts[key] - most for key in crowded)
    examples = tuple(
        Example(annotated.path(annotated.images_by_id[key]), detail=f'{counts[key]} objects') for key in crowded[:12]
    )
    message = (
        f'{part_of(len(crowded), len(annotated.images), "image")} with more objects than the {most} that the model '
        f'predicts per image; it misses at least {count_of(lost, "object")}.'
    )
    return make_finding('too_many', annotated.split.name, message, len(crowded), examples)
