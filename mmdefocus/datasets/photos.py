"""scikit-learn's two sample photographs as a COCO-format set of two images, in the layout of COCO 2017."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset

from mmdefocus.datasets.coco_ids import COCO_IDS
from mmdefocus.datasets.staging import staged_directory

SPLITS = ('train2017', 'val2017')
WIDTH, HEIGHT = 640, 427
# Hand-set boxes [x, y, width, height] in pixels, with 1 for a crowd region. No pot of the dahlias is visible, but
# 'potted plant' is the nearest of COCO's categories.
_OBJECTS: dict[str, list[tuple[str, list[float], int]]] = {
    'china.jpg': [
        ('boat', [465.0, 271.8, 4.7, 4.0], 0),
        ('boat', [483.5, 268.0, 4.5, 3.5], 0),
        ('boat', [405.3, 282.7, 5.5, 4.3], 0),
        ('boat', [383.0, 285.0, 4.2, 4.7], 0),
        ('boat', [370.5, 297.8, 4.2, 5.0], 0),
        ('boat', [423.7, 276.7, 3.0, 4.0], 0),
        ('boat', [443.8, 261.0, 3.7, 3.0], 0),
        ('boat', [444.3, 255.0, 3.5, 2.7], 0),
        ('boat', [350.0, 239.0, 198.0, 31.0], 1),
    ],
    'flower.jpg': [
        ('potted plant', [169.0, 84.0, 278.0, 276.0], 0),
        ('potted plant', [288.0, 374.0, 181.0, 53.0], 0),
    ],
}


def make_photos_coco(out: str | Path, force: bool = False) -> bool:
    """Write ``train2017/``, ``val2017/`` and ``annotations/instances_{train,val}2017.json`` with equal splits.

    Args:
        out: Directory of the set.
        force: Replace a set of photographs that differs. Nothing else is ever replaced.

    Returns:
        True if the set was made, False if ``out`` already held it.

    Raises:
        FileExistsError: ``out`` holds something else, or a set that differs and ``force`` is off.
    """
    out = Path(out)
    content = describe_photos()
    photos = {name: resources.files('sklearn.datasets.images').joinpath(name).read_bytes() for name in _OBJECTS}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = [_read_annotations(out, split) for split in SPLITS]
        if any((one.get('info') or {}).get('description') != content['info']['description'] for one in found):
            raise FileExistsError(f'{out} exists and is not a set made by this tool; choose another --out')
        images = all(
            (out / split / name).is_file() and (out / split / name).read_bytes() == data
            for split in SPLITS
            for name, data in photos.items()
        )
        if images and all(one == content for one in found):
            return False
        if not force:
            raise FileExistsError(f'{out} holds a damaged or older set of photographs; use --force to replace it')
    with staged_directory(out) as fresh:
        (fresh / 'annotations').mkdir()
        for split in SPLITS:
            (fresh / split).mkdir()
            for name, data in photos.items():
                (fresh / split / name).write_bytes(data)
            (fresh / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return True


def describe_photos() -> dict[str, Any]:
    """Return the annotations of the two photographs.

    Returns:
        A COCO-format dict with COCO's own 80 categories and ids.
    """
    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=number, name=name) for number, name in zip(COCO_IDS, names, strict=True)]
    id_of = {category['name']: category['id'] for category in categories}
    images: list[dict[str, Any]] = [
        dict(id=number, file_name=name, width=WIDTH, height=HEIGHT) for number, name in enumerate(_OBJECTS, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for name, box, crowd in _OBJECTS[image['file_name']]:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=id_of[name],
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=crowd,
                )
            )
    info = dict(description="scikit-learn's two sample photographs with hand-set boxes")
    return dict(info=info, licenses=[], images=images, annotations=annotations, categories=categories)


def _read_annotations(out: Path, split: str) -> dict[str, Any]:
    try:
        content = json.loads((out / 'annotations' / f'instances_{split}.json').read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
