"""Small data sets without a mistake, which tests then break."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmdefocus.datasets.inspection import DataReport, inspect_data
from mmdefocus.datasets.prepared.source_data import SourceData, SourceSplit

WIDTH, HEIGHT, IMAGES = 96, 64, 6
CLASSES = ('cat', 'dog')
Break = Callable[[dict[str, Any], Path], None]


def draw(path: Path, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> None:
    """Write an image that no other seed resembles."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size).save(path, **options)


def make_images(root: Path) -> None:
    for number, split in enumerate(('train', 'val')):
        (root / split).mkdir(parents=True)
        for image in range(IMAGES):
            draw(root / split / f'{image}.jpg', 10 * number + image, quality=95)


def clean_content() -> dict[str, Any]:
    """Return six images with three boxes of each class."""
    images = [dict(id=one + 1, file_name=f'{one}.jpg', width=WIDTH, height=HEIGHT) for one in range(IMAGES)]
    annotations = []
    for image in images:
        for column in range(6):
            box = [2 + 15 * column, 10 + 20 * (column % 2), 12, 14]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=1 + column % 2,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def make_source(root: Path, **changes: Break) -> SourceData:
    """Return a detection set; ``changes`` break the content of a split in place."""
    splits = {}
    for split in ('train', 'val'):
        content = clean_content()
        changes.get(split, lambda *_: None)(content, root / split)
        splits[split] = SourceSplit(split, root / split, content)
    return SourceData(root, 'coco', 'detection', splits)


def make_classification(root: Path) -> SourceData:
    splits = {}
    for number, split in enumerate(('train', 'val')):
        images = []
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for one in range(10):
                draw(root / split / name / f'{one}.png', 100 * number + 10 * label + one, (16, 16))
                image = dict(id=len(images) + 1, file_name=f'{name}/{one}.png', width=16, height=16, category_id=label)
                images.append(image)
        categories = [dict(id=label, name=name) for label, name in enumerate(CLASSES)]
        content = dict(images=images, annotations=[], categories=categories)
        splits[split] = SourceSplit(split, root / split, content)
    return SourceData(root, 'folders', 'classification', splits)


def kinds(report: DataReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def inspect(source: SourceData, **options: Any) -> DataReport:
    """Inspect a set, and check that this has not changed it."""
    before = copy.deepcopy({name: repr(split.content) for name, split in source.splits.items()})
    report = inspect_data(source, strides=(8, 16), image_size=WIDTH, **options)
    assert before == {name: repr(split.content) for name, split in source.splits.items()}
    json.dumps(report.to_dict(), allow_nan=False)
    return report
