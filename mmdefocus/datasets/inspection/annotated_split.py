"""The entries of a split that can be interpreted, as arrays.

Shapes: N boxes that are four finite numbers and belong to a known image.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmdefocus.datasets.coco_values import is_number

from ..prepared.source_data import SourceSplit
from .findings import MOST_EXAMPLES, Example, Finding
from .image_facts import ImageFacts
from .kinds import KINDS, Severity


def image_path(split: SourceSplit, image: Mapping[str, Any]) -> Path:
    """Return the path of the file of an image entry."""
    return split.image_root / image['file_name']


def is_id(value: Any) -> bool:
    """Return True for a number or a string, which can identify an entry."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def is_box(value: Any) -> bool:
    """Return True for four finite numbers."""
    return isinstance(value, list | tuple) and len(value) == 4 and all(is_number(one) for one in value)


@dataclass(frozen=True)
class AnnotatedSplit:
    """A split with its entries by id. Entries that cannot be interpreted are left out; other checks report them.

    Attributes:
        split: The split as it was found.
        facts: What is known about the image files, by path.
    """

    split: SourceSplit
    facts: Mapping[str, ImageFacts]

    @cached_property
    def images(self) -> list[dict[str, Any]]:
        """Image entries with an id and a file name."""
        return [
            image
            for image in self.split.content['images']
            if isinstance(image, dict) and is_id(image.get('id')) and isinstance(image.get('file_name'), str)
        ]

    @cached_property
    def images_by_id(self) -> dict[Any, dict[str, Any]]:
        """Image entries by id; the first one of an id that occurs twice."""
        return {image['id']: image for image in reversed(self.images)}

    @cached_property
    def names(self) -> dict[Any, str]:
        """Names of the categories by id, in the order of the file."""
        return {
            category['id']: category['name']
            for category in self.split.content['categories']
            if isinstance(category, dict) and is_id(category.get('id')) and isinstance(category.get('name'), str)
        }

    @cached_property
    def annotations(self) -> list[dict[str, Any]]:
        """Annotations that are objects with an id of an image and of a category."""
        return [
            ann
            for ann in self.split.content.get('annotations', [])
            if isinstance(ann, dict) and is_id(ann.get('image_id')) and is_id(ann.get('category_id'))
        ]

    @cached_property
    def boxed(self) -> list[dict[str, Any]]:
        """Annotations of known images whose box is four finite numbers: the N boxes."""
        return [ann for ann in self.annotations if ann['image_id'] in self.images_by_id and is_box(ann.get('bbox'))]

    @cached_property
    def boxes(self) -> np.ndarray:
        """Boxes ``x, y, w, h`` in pixels, (N, 4) float64."""
        return np.array([ann['bbox'] for ann in self.boxed], np.float64).reshape(-1, 4)

    @cached_property
    def image_sizes(self) -> np.ndarray:
        """Width and height of the image of every box, (N, 2) float64; NaN where unknown."""
        sizes = {key: self.size(image) for key, image in self.images_by_id.items()}
        return np.array([sizes[ann['image_id']] for ann in self.boxed], np.float64).reshape(-1, 2)

    def size(self, image: Mapping[str, Any]) -> tuple[float, float]:
        """Return width and height of an image: those of its entry, else those of its file, else NaN."""
        sides: list[Any] = [image.get('width'), image.get('height')]
        if all(is_number(side) and side >= 1 for side in sides):
            return sides[0], sides[1]
        return self.path_facts(image).size or (math.nan, math.nan)

    def path(self, image: Mapping[str, Any]) -> str:
        """Return the path of an image file."""
        return os.fspath(image_path(self.split, image))

    def path_facts(self, image: Mapping[str, Any]) -> ImageFacts:
        """Return what is known about an image file."""
        return self.facts.get(self.path(image), ImageFacts())

    def name(self, category: Any) -> str:
        """Return the name of a category, or its id if it is unknown."""
        return self.names.get(category, f'category {category!r}')

    def box_example(self, position: int, detail: str) -> Example:
        """Return one of the N boxes as an example."""
        ann = self.boxed[position]
        return Example(
            self.path(self.images_by_id[ann['image_id']]),
            tuple(ann['bbox']),
            ann.get('id'),
            f'{self.name(ann["category_id"])!r}, {detail}',
        )

    def image_examples(self, images: Sequence[Mapping[str, Any]], detail: str) -> tuple[Example, ...]:
        """Return the first images as examples."""
        return tuple(Example(self.path(image), detail=detail) for image in images[:MOST_EXAMPLES])

    def box_finding(self, kind: str, positions: Any, message: str, details: Any, **changes: Any) -> list[Finding]:
        """Return a finding about boxes, or none without boxes.

        Args:
            kind: Kind of the finding.
            positions: Positions among the N boxes, the worst first.
            message: Message.
            details: Detail of an example, a function of its position.
            **changes: Other severity.
        """
        examples = tuple(self.box_example(int(one), details(int(one))) for one in positions[:MOST_EXAMPLES])
        return make_finding(kind, self.split.name, message, len(positions), examples, **changes)


def make_finding(
    kind: str,
    split: str,
    message: str,
    count: int,
    examples: tuple[Example, ...] = (),
    severity: Severity | None = None,
) -> list[Finding]:
    """Return a finding with the severity of its kind unless told otherwise; none if it concerns nothing."""
    if not count:
        return []
    return [Finding(kind, severity or KINDS[kind].severity, split, message, count, examples[:MOST_EXAMPLES])]


def count_of(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 box`` and ``2 boxes``."""
    plural = f'{noun[:-1]}ies' if noun.endswith('ry') else f'{noun}es' if noun.endswith(('x', 's')) else f'{noun}s'
    return f'{count} {noun if count == 1 else plural}'


def part_of(part: int, whole: int, noun: str) -> str:
    """Return a part with the whole and its share, such as ``3 of 20 boxes (15 %)``."""
    return f'{part} of {count_of(whole, noun)} ({share(part, whole)})'


def share(part: int, whole: int) -> str:
    """Return a share in percent."""
    percent = 100 * part / max(whole, 1)
    return f'{percent:.0f} %' if percent >= 1 or not part else f'{percent:.1g} %'
