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
# Hand-set boxes [x, y, width, height] and outlines "x1,y1 x2,y2 …" in pixels; a crowd region has no outline. No pot of
# the dahlias is visible, but 'potted plant' is the nearest of COCO's categories.
_OBJECTS: dict[str, list[tuple[str, list[float], str | None]]] = {
    'china.jpg': [
        ('boat', [465.0, 271.8, 4.7, 4.0], '466,271.8 469,271.8 469.7,274.4 469,275.8 465.4,275.8 465,274'),
        ('boat', [483.5, 268.0, 4.5, 3.5], '484,268 487.6,268 488,270 487.6,271.5 484,271.5 483.5,270'),
        ('boat', [405.3, 282.7, 5.5, 4.3], '407,282.7 409.6,282.8 410.8,284.5 410.4,287 405.8,287 405.3,284.5'),
        ('boat', [383.0, 285.0, 4.2, 4.7], '383.8,285 386.9,285 387.2,288.6 386,289.7 384,289.7 383,288.4'),
        ('boat', [370.5, 297.8, 4.2, 5.0], '371.2,297.8 374,297.8 374.7,301 374.4,302.8 372,302.8 370.5,301.4'),
        ('boat', [423.7, 276.7, 3.0, 4.0], '424,276.8 426.2,276.7 426.7,278 426.4,280.7 424,280.7 423.7,279'),
        ('boat', [443.8, 261.0, 3.7, 3.0], '444.2,261 447,261 447.5,262.6 447.2,264 444,264 443.8,263'),
        ('boat', [444.3, 255.0, 3.5, 2.7], '445,255 447.4,255 447.8,256.4 447.2,257.7 444.8,257.7 444.3,256.2'),
        ('boat', [350.0, 239.0, 198.0, 31.0], None),
    ],
    'flower.jpg': [
        (
            'potted plant',
            [169.0, 84.0, 278.0, 276.0],
            '319,84 309,85.5 296,91.5 283,97 270,95 255,97 241,103 229,113 214,116 206,125 203,134 195,138 '
            '188,149 188,169 181,169.5 177,174 177,193 170,201 169,212 172,228 172,260 178,269 184,284 188,297 '
            '198,305 202,316 216,328 230,335 245,349 263,351 288,359 314,358 330,360 347,351 367,345 384,334 '
            '399,330 409,321 409,311 418,300 430,280 434,269 440,253 446,237 447,212 440,192 433,182 432,164 '
            '427,146 412,133 409,122 400,115 389,112 380,102 368,98 348,92 333,92',
        ),
        (
            'potted plant',
            [288.0, 374.0, 181.0, 53.0],
            '295,427 294,420 289,415 288,407 294,399 303,393 321,394 324,387 333,385 339,378 346,374 354,376 '
            '370,388 375,387 385,380 396,378.5 408,384 414,381 424,380 433,384 439,394 442,403 440,419 454,421 '
            '463,424 469,427',
        ),
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
        A COCO-format dict with COCO's own 80 categories and ids. As in COCO, the masks of objects are polygons, that of
        the crowd region is given by run lengths, and areas are those of the masks.
    """
    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=number, name=name) for number, name in zip(COCO_IDS, names, strict=True)]
    id_of = {category['name']: category['id'] for category in categories}
    images: list[dict[str, Any]] = [
        dict(id=number, file_name=name, width=WIDTH, height=HEIGHT) for number, name in enumerate(_OBJECTS, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for name, box, points in _OBJECTS[image['file_name']]:
            outline = None if points is None else [float(value) for value in points.replace(',', ' ').split()]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=id_of[name],
                    bbox=box,
                    segmentation=_filled_box(box) if outline is None else [outline],
                    area=box[2] * box[3] if outline is None else _polygon_area(outline),
                    iscrowd=int(outline is None),
                )
            )
    info = dict(description="scikit-learn's two sample photographs with hand-set boxes")
    return dict(info=info, licenses=[], images=images, annotations=annotations, categories=categories)


def _filled_box(box: list[float]) -> dict[str, list[int]]:
    """Return the pixels of a box as COCO's run lengths, column by column: alternately outside and inside."""
    x, y, width, height = map(int, box)
    rest = HEIGHT - height
    counts = [x * HEIGHT + y, *([height, rest] * (width - 1)), height, (WIDTH - x - width) * HEIGHT + rest - y]
    return dict(size=[HEIGHT, WIDTH], counts=counts)


def _polygon_area(outline: list[float]) -> float:
    points = list(zip(outline[::2], outline[1::2], strict=True))
    following = [*points[1:], points[0]]
    return round(abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2, 2)


def _read_annotations(out: Path, split: str) -> dict[str, Any]:
    try:
        content = json.loads((out / 'annotations' / f'instances_{split}.json').read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
