"""Annotation files of a detection set: one COCO file per split, with the categories of the training split."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mmdefocus.datasets.coco_checks import abbreviate, check_keys, check_references, check_unique, read_coco
from mmdefocus.datasets.coco_masks import check_masks
from mmdefocus.datasets.coco_values import check_box_format, check_category_names, check_ids, is_degenerate, is_number
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.categories import common_categories
from mmdefocus.datasets.prepared.source_data import PreparedData, PreparedSplit, SourceData, SourceSplit


def write_detection(source: SourceData, out: Path) -> PreparedData:
    """Write ``train.json``, ``val.json``, …, which ``DefocusCocoDataset`` reads.

    ``area`` and ``iscrowd`` are added where they are absent. Everything else is as found.

    Raises:
        DataError: As ``DefocusCocoDataset``, or a split has categories that training has not.
    """
    categories, ids, notes = common_categories(source)
    added = Counter[str]()
    contents = {name: _complete(split.content, categories, ids[name], added) for name, split in source.splits.items()}
    if added['area']:
        notes.append(f'{added["area"]} boxes have no area: the area of the mask or box is used.')
    if added['iscrowd']:
        notes.append(f'{added["iscrowd"]} boxes have no iscrowd: they count as single objects.')
    splits, all_masks = {}, True
    for name, split in source.splits.items():
        file = out / f'{name}.json'
        file.write_text(json.dumps(contents[name], ensure_ascii=False) + '\n', encoding='utf-8')
        content = read_coco(file, repr(_name(split)), test_mode=name != 'train')
        notes += _check_boxes(repr(_name(split)), name, content)
        notes += _absent_classes(name, content)
        masks = [ann for ann in content['annotations'] if ann.get('segmentation')]
        all_masks &= len(masks) == len(content['annotations'])
        check_masks(repr(_name(split)), content['images'], masks)
        largest = tuple(max(int(image[key]) for image in content['images']) for key in ('width', 'height'))
        per_image = Counter(ann['image_id'] for ann in content['annotations'])
        splits[name] = PreparedSplit(
            image_root=split.image_root,
            ann_file=file,
            images=len(content['images']),
            objects=len(content['annotations']),
            largest=(largest[0], largest[1]),
            most_objects=max(per_image.values(), default=0),
            empty_images=len(content['images']) - len(per_image),
        )
    return PreparedData(
        root=source.root,
        format=source.format,
        task=source.task,
        classes=tuple(category['name'] for category in categories),
        splits=splits,
        category_ids=tuple(category['id'] for category in categories),
        has_masks=all_masks,
        notes=tuple(notes),
    )


def _name(split: SourceSplit) -> str:
    return str(split.files[0]) if len(split.files) == 1 else f'{split.name} in {split.image_root}'


def check_entries(split: SourceSplit) -> None:
    """Check keys, ids and references of a detection split, without which it can neither be split nor compared.

    Raises:
        DataError: An entry is wrong.
    """
    name, content = repr(_name(split)), split.content
    check_keys(name, 'image', content['images'], ('id', 'file_name'))
    check_keys(name, 'category', content['categories'], ('id', 'name'))
    check_keys(name, 'annotation', content['annotations'], ('id', 'image_id', 'category_id', 'bbox'))
    for kind, listed in (('image', 'images'), ('category', 'categories')):
        check_ids(name, kind, 'id', content[listed])
    for key in ('image_id', 'category_id'):
        check_ids(name, 'annotation', key, content['annotations'])
    check_category_names(name, content['categories'])
    for key in ('id', 'name'):
        check_unique(name, 'category', key, content['categories'])
    check_references(name, content)


def _complete(
    content: dict[str, Any], categories: list[dict], ids: dict[Any, Any], added: Counter[str]
) -> dict[str, Any]:
    """Return the content with common categories, areas and flags; count what is added."""
    annotations = []
    for ann in content['annotations']:
        entry = dict(ann)
        entry['category_id'] = ids[entry['category_id']]
        if 'iscrowd' not in entry:
            entry['iscrowd'] = 0
            added['iscrowd'] += 1
        if 'area' not in entry and (area := _area(entry)) is not None:
            entry['area'] = area
            added['area'] += 1
        annotations.append(entry)
    return dict(content, annotations=annotations, categories=categories)


def _area(ann: dict[str, Any]) -> float | None:
    """Return the area of the polygons, or of the box; None if the box is no box, which the checks report."""
    box = ann.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return None
    polygons = ann.get('segmentation')
    if isinstance(polygons, list) and polygons and all(isinstance(one, list) and len(one) >= 6 for one in polygons):
        return round(sum(_polygon_area(one) for one in polygons), 4)
    return round(box[2] * box[3], 4)


def _polygon_area(polygon: list[float]) -> float:
    points = list(zip(polygon[0::2], polygon[1::2], strict=False))
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True))) / 2


def _check_boxes(name: str, split: str, content: dict[str, Any]) -> list[str]:
    images = {image['id']: image for image in content['images']}
    annotations = content['annotations']
    check_box_format(name, content['images'], annotations)
    degenerate = [
        ann
        for ann in annotations
        if is_degenerate(ann, images[ann['image_id']]['width'], images[ann['image_id']]['height'])
    ]
    small = {ann['id'] for ann in degenerate}
    if not any(not ann['iscrowd'] and not ann.get('ignore') and ann['id'] not in small for ann in annotations):
        if split == 'train':
            raise DataError(
                f'{name} has no usable box to train on ({len(annotations)} boxes, {len(degenerate)} of them smaller '
                'than a pixel or outside their image); add or correct boxes'
            )
        return [f'{split}: there is no usable box, so that every AP is -1.']
    if degenerate:
        return [
            f'{split}: {len(degenerate)} of {len(annotations)} boxes are smaller than a pixel, have no area or lie '
            f'outside their image; training ignores them (the first is annotation {degenerate[0]["id"]!r}).'
        ]
    return []


def _absent_classes(split: str, content: dict[str, Any]) -> list[str]:
    used = {ann['category_id'] for ann in content['annotations']}
    absent = [category['name'] for category in content['categories'] if category['id'] not in used]
    return [f'{split}: no box has the classes {abbreviate(absent)}.'] if absent and used else []
