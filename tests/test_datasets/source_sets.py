"""One small set of real digits in every layout that users have. All detection layouts have equal boxes and names."""

import json
import shutil
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits

# Not in alphabetical order, so that sorted and given orders differ.
NAMES = ('three', 'one', 'two')
_DIGITS = (3, 1, 2)
WIDTH, HEIGHT = 64, 48
SPLITS = {'train': 6, 'val': 3, 'test': 2}

# Boxes by file: (index in NAMES, [x, y, w, h]).
Boxes = dict[str, list[tuple[int, list[int]]]]


def make_pictures(folder: Path, split: str, count: int | None = None) -> Boxes:
    """Write pictures of one or two digits to a folder.

    Args:
        folder: Folder, which is made.
        split: Split, so that every split has other pictures.
        count: Number of pictures; as in SPLITS by default. More pictures begin with the same ones.

    Returns:
        Boxes in whole pixels by file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    boxes: Boxes = {}
    for number in range(SPLITS[split] if count is None else count):
        rng = np.random.default_rng([list(SPLITS).index(split), number])
        canvas = rng.integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        name = f'{split}_{number:02}.png'
        boxes[name] = []
        for place in range(1 + number % 2):
            label = (number + place) % len(NAMES)
            glyph = data.images[rng.choice(np.flatnonzero(data.target == _DIGITS[label]))]
            side = int(rng.integers(12, 25))
            x, y = 2 + 32 * place + int(rng.integers(0, 6)), int(rng.integers(1, HEIGHT - side))
            pixels = Image.fromarray((glyph * 15.9).astype(np.uint8)).resize((side, side))
            canvas[y : y + side, x : x + side] = np.maximum(
                canvas[y : y + side, x : x + side], np.array(pixels)[..., None]
            )
            boxes[name].append((label, [x, y, side, side]))
        Image.fromarray(canvas).save(folder / name)
    return boxes


def coco_content(boxes: Boxes, first_id: int = 1) -> dict[str, Any]:
    """Return boxes in COCO format; the categories are NAMES with ids from ``first_id``."""
    content: dict[str, Any] = dict(images=[], annotations=[], categories=[])
    content['categories'] = [dict(id=first_id + label, name=name) for label, name in enumerate(NAMES)]
    for number, (name, listed) in enumerate(boxes.items(), 1):
        content['images'].append(dict(id=number, file_name=name, width=WIDTH, height=HEIGHT))
        for label, box in listed:
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=number,
                    category_id=first_id + label,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    return content


def make_coco(root: Path, splits: tuple[str, ...] = ('train', 'val'), count: int | None = None) -> Path:
    """Write ``annotations/instances_{split}.json`` and ``{split}/*.png``; return ``root``."""
    (root / 'annotations').mkdir(parents=True)
    for split in splits:
        content = coco_content(make_pictures(root / split, split, count))
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root


def make_roboflow(root: Path, splits: tuple[str, ...] = ('train', 'val')) -> Path:
    """Write ``{train,valid}/_annotations.coco.json`` with Roboflow's superfluous category 0; return ``root``."""
    for split in splits:
        folder = root / ('valid' if split == 'val' else split)
        content = coco_content(make_pictures(folder, split))
        for category in content['categories']:
            category['supercategory'] = 'digits'
        content['categories'].insert(0, dict(id=0, name='digits', supercategory='none'))
        (folder / '_annotations.coco.json').write_text(json.dumps(content))
    return root


def make_yolo(root: Path, splits: tuple[str, ...] = ('train', 'val'), roboflow: bool = False) -> Path:
    """Write ``data.yaml`` with images and labels.

    Args:
        root: Folder, which is made.
        splits: Splits.
        roboflow: ``train/images``, ``train/labels`` and ``../train/images`` in the YAML file, in place of
            ``images/train`` and ``labels/train``.

    Returns:
        ``root``.
    """
    root.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = dict(names=list(NAMES), nc=len(NAMES))
    for split in splits:
        name = 'valid' if roboflow and split == 'val' else split
        images, labels = (f'{name}/images', f'{name}/labels') if roboflow else (f'images/{name}', f'labels/{name}')
        content[split] = f'../{images}' if roboflow else images
        (root / labels).mkdir(parents=True)
        for file, listed in make_pictures(root / images, split).items():
            lines = [
                f'{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n'
                for label, (x, y, w, h) in listed
            ]
            (root / labels / file).with_suffix('.txt').write_text(''.join(lines))
    (root / 'data.yaml').write_text(yaml.safe_dump(content))
    return root


def make_voc(root: Path, splits: tuple[str, ...] = ('train', 'val'), roboflow: bool = False) -> Path:
    """Write Pascal VOC's folders, or with ``roboflow`` XML files beside the images; return ``root``."""
    for split in splits:
        name = 'valid' if roboflow and split == 'val' else split
        images = root / name if roboflow else root / 'JPEGImages'
        annotations = root / name if roboflow else root / 'Annotations'
        annotations.mkdir(parents=True, exist_ok=True)
        boxes = make_pictures(images, split)
        for file, listed in boxes.items():
            (annotations / file).with_suffix('.xml').write_text(voc_text(file, listed))
        if not roboflow:
            (root / 'ImageSets' / 'Main').mkdir(parents=True, exist_ok=True)
            (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(''.join(f'{Path(file).stem}\n' for file in boxes))
    return root


def voc_text(file: str, listed: list[tuple[int, list[int]]]) -> str:
    """Return the XML of an image; pixels count from 1, as in Pascal VOC."""
    objects = ''.join(
        f'<object><name>{escape(NAMES[label])}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
        f'<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for label, (x, y, w, h) in listed
    )
    size = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>'
    return f'<annotation><filename>{escape(file)}</filename>{size}{objects}</annotation>'


def make_class_folders(root: Path, splits: tuple[str, ...] = ('train', 'val')) -> Path:
    """Write ``{split}/{class}/*.png``, or ``{class}/*.png`` with ``splits=()``; return ``root``.

    The class of a picture is that of its first box.
    """
    for split in splits or ('train',):
        base = root / split if splits else root
        for file, listed in make_pictures(root / '.made', split).items():
            folder = base / NAMES[listed[0][0]]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(root / '.made' / file, folder / file)
    shutil.rmtree(root / '.made')
    return root
