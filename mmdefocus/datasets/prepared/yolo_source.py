"""Labels of YOLO sets: boxes, polygons and keypoint labels as boxes in pixels."""

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.image_headers import read_size
from mmdefocus.datasets.prepared.source_data import ReadingProblem, SourceSplit
from mmdefocus.datasets.prepared.yolo_layout import YoloLayout

# supervision's loader rounds boxes to float32, turns polygons into pixels, renumbers ids with gaps, and stops at the
# first damaged image or line; what it reads without these is compared with this module in the tests.


def read_yolo_splits(layout: YoloLayout) -> tuple[dict[str, SourceSplit], list[str]]:
    """Read all splits. Ids of categories are those of the labels.

    Returns:
        Splits by name, and notes.

    Raises:
        DataError: A training or validation split has no label files.
    """
    notes = list(layout.notes)
    categories = [dict(id=number, name=name) for number, name in layout.names.items()]
    splits, forms = {}, Counter[str]()
    for split, paths in layout.images.items():
        image_root = Path(os.path.commonpath([path.parent for path in paths]))
        content: dict[str, Any] = dict(images=[], annotations=[], categories=categories)
        problems: list[ReadingProblem] = []
        unlabelled = 0
        folders: dict[Path, Path | None] = {}
        for path in paths:
            if path.parent not in folders:
                folders[path.parent] = _label_folder(path.parent)
            label_folder = folders[path.parent]
            size = read_size(path)
            width, height = size or (None, None)
            number = len(content['images']) + 1
            name = path.relative_to(image_root).as_posix()
            content['images'].append(dict(id=number, file_name=name, width=width, height=height))
            label_file = label_folder / f'{path.stem}.txt' if label_folder else None
            if label_file is None or not label_file.is_file():
                unlabelled += 1
                continue
            for ann in _read_labels(label_file, size, layout.keypoint_values, problems, forms):
                content['annotations'].append(dict(ann, id=len(content['annotations']) + 1, image_id=number))
        problems += _labels_without_image(folders, paths)
        if unlabelled == len(paths) and split != 'test':
            raise DataError(
                f'{layout.path}: none of the {len(paths)} images of {split} has a label file; searched '
                f'{", ".join(map(str, _label_folders(paths[0].parent)))}; expected {paths[0].stem}.txt in one of them'
            )
        if unlabelled:
            notes.append(
                f'{split}: {unlabelled} of {len(paths)} images have no label file; they count as without objects.'
            )
        splits[split] = SourceSplit(split, image_root, content, (layout.path,), tuple(problems))
    if forms['extra']:
        notes.append(f'{forms["extra"]} labels have a number behind the box or polygon, which is not read.')
    if forms['keypoints']:
        notes.append(f'{forms["keypoints"]} labels have keypoints, of which the boxes are read.')
    if forms['polygon']:
        notes.append(
            f'{forms["polygon"]} labels are polygons or rotated boxes; their boxes are the extents, and the polygons '
            'are kept as masks.'
        )
    return splits, notes


def _label_folders(images: Path) -> list[Path]:
    parts = images.parts
    folders = []
    if 'images' in parts:
        last = len(parts) - 1 - parts[::-1].index('images')
        folders.append(Path(*parts[:last], 'labels', *parts[last + 1 :]))
    return [*folders, images, images / 'labels', images.parent / 'labels' / images.name]


def _label_folder(images: Path) -> Path | None:
    for folder in _label_folders(images):
        if folder.is_dir() and any(entry.name.endswith('.txt') for entry in os.scandir(folder)):
            return folder
    return None


def _labels_without_image(folders: dict[Path, Path | None], paths: list[Path]) -> list[ReadingProblem]:
    stems: dict[Path, set[str]] = {}
    for path in paths:
        if (folder := folders[path.parent]) is not None:
            stems.setdefault(folder, set()).add(path.stem)
    # Folders with images and labels may have other texts, such as lists of classes.
    apart = {folder: found for folder, found in stems.items() if folder not in folders}
    return [
        ReadingProblem('label-without-image', label, f'{label} has no image of this name; add it, or remove the label')
        for folder, found in apart.items()
        for label in sorted(folder.glob('*.txt'))
        if label.stem not in found and label.stem != 'classes'
    ]


def _read_labels(
    path: Path,
    size: tuple[int, int] | None,
    keypoint_values: int,
    problems: list[ReadingProblem],
    forms: Counter[str],
) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(ReadingProblem('unreadable-label-file', path, f'{path} is not a text file ({error})'))
        return []
    labels = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            labels.append(_parse(line, size, keypoint_values, forms))
        except ValueError as error:
            problems.append(ReadingProblem('malformed-label', path, f'{path}, line {number}: {error}, got {line!r}'))
    return labels


def _parse(line: str, size: tuple[int, int] | None, keypoint_values: int, forms: Counter[str]) -> dict[str, Any]:
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise ValueError('expected numbers only') from None
    if not all(map(math.isfinite, (number, *values))) or not number.is_integer():
        raise ValueError('expected finite numbers, and a whole number first')
    if len(values) < 4:
        raise ValueError('expected a class and at least four numbers (x_centre y_centre width height)')
    width, height = size or (1, 1)
    label: dict[str, Any] = dict(category_id=int(number))
    if keypoint_values and len(values) == 4 + keypoint_values:
        forms['keypoints'] += 1
        values = values[:4]
    elif len(values) == 5 or (len(values) > 5 and len(values) % 2):
        forms['extra'] += 1
        values = values[:-1]
    if len(values) == 4:
        x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
    else:
        forms['polygon'] += 1
        xs, ys = [x * width for x in values[0::2]], [y * height for y in values[1::2]]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        if size:
            label['segmentation'] = [[round(value, 4) for point in zip(xs, ys, strict=True) for value in point]]
    # Labels have six digits; more than four after the point would only show rounding errors of the multiplication.
    return dict(label, bbox=[round(value, 4) for value in box] if size else None)
