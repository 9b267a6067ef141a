"""Histograms of a data set: sizes and forms of boxes and images, and objects per image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..prepared.source_data import Task
from .annotated_split import AnnotatedSplit

_SHORT_SIDES = (4, 8, 16, 32, 64, 128, 256, 512)
_AREAS = (0.001, 0.01, 0.05, 0.2, 0.5)
_RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)
_OBJECTS = (1, 2, 3, 5, 10, 20, 50, 100)
_MOST_SIZES = 10


def count_bins(splits: Mapping[str, AnnotatedSplit], task: Task) -> dict[str, dict[str, dict[str, int]]]:
    """Count by histogram, split and bin.

    Args:
        splits: All splits.
        task: What the annotations are for; a classification set has no histograms of boxes.

    Returns:
        ``image_size`` (width x height in pixels) and, for detection, ``short_side`` (of boxes, in pixels),
        ``relative_area`` (of the image), ``aspect_ratio`` (width / height) and ``objects_per_image``. All splits have
        the same bins.
    """
    histograms = {'image_size': _image_sizes(splits)}
    if task == 'classification':
        return histograms
    for name in ('short_side', 'relative_area', 'aspect_ratio', 'objects_per_image'):
        histograms[name] = {}
    for split, annotated in splits.items():
        boxes, sizes = annotated.boxes, annotated.image_sizes
        valid = (boxes[:, 2:] > 0).all(1) & (sizes > 0).all(1)
        sides, sizes = boxes[valid, 2:], sizes[valid]
        histograms['short_side'][split] = _bins(sides.min(1, initial=np.inf), _SHORT_SIDES, str)
        histograms['relative_area'][split] = _bins(sides.prod(1) / sizes.prod(1), _AREAS, _percent)
        histograms['aspect_ratio'][split] = _bins(sides[:, 0] / sides[:, 1], _RATIOS, str)
        counts = Counter(ann['image_id'] for ann in annotated.boxed)
        numbers = np.array([counts[image['id']] for image in annotated.images], np.float64)
        histograms['objects_per_image'][split] = _whole_bins(numbers, _OBJECTS)
    return histograms


def _bins(values: np.ndarray, edges: Sequence[float], label: object) -> dict[str, int]:
    """Count values from each edge on up to the next."""
    labels = [label(edge) for edge in edges]  # type: ignore[operator] # a function
    names = [f'< {labels[0]}', *(f'{a}-{b}' for a, b in pairwise(labels)), f'≥ {labels[-1]}']
    counts = np.bincount(np.digitize(values, edges), minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _whole_bins(values: np.ndarray, edges: Sequence[int]) -> dict[str, int]:
    """Count whole numbers; a bin ends before the next edge."""
    starts = (0, *edges)
    names = [
        str(start) if following - start == 1 else f'{start}-{following - 1}'
        for start, following in zip(starts, edges, strict=False)
    ]
    counts = np.bincount(np.digitize(values, edges), minlength=len(names) + 1)
    return {name: int(count) for name, count in zip([*names, f'≥ {edges[-1]}'], counts, strict=True)}


def _percent(value: float) -> str:
    return f'{100 * value:g} %'


def _image_sizes(splits: Mapping[str, AnnotatedSplit]) -> dict[str, dict[str, int]]:
    counts = {
        split: Counter(_size(annotated, image) for image in annotated.images) for split, annotated in splits.items()
    }
    total: Counter[str] = sum(counts.values(), Counter())
    names = [name for name, _ in total.most_common(_MOST_SIZES)]
    histogram = {}
    for split, numbers in counts.items():
        others = sum(numbers.values()) - sum(numbers[name] for name in names)
        histogram[split] = {name: numbers[name] for name in names} | (
            {'others': others} if len(total) > len(names) else {}
        )
    return histogram


def _size(annotated: AnnotatedSplit, image: Mapping[str, object]) -> str:
    facts = annotated.path_facts(image)
    width, height = facts.size or annotated.size(image)
    return 'unknown' if width != width else f'{width}x{height}'
