"""Coloured rectangles in COCO format, with categories numbered and ordered in all ways, and the tools run on them."""

import itertools
import json
import pickle
import runpy
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TOOLS
from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MMLogger
from PIL import Image, ImageDraw

from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent
DETECTOR, CLASSIFIER = HERE / 'toy_colour_detector.py', HERE / 'toy_colour_classifier.py'
COLOURS = {
    'red': (250, 0, 0),
    'green': (0, 250, 0),
    'blue': (0, 0, 250),
    'white': (250, 250, 250),
    # Of COCO's classes, some after each gap in the ids.
    'person': (250, 250, 0),
    'stop sign': (250, 0, 250),
    'toothbrush': (0, 250, 250),
}
Categories = Sequence[tuple[Any, str]]
_numbers = itertools.count()


def tool(root: Path, name: str, *words: object) -> None:
    """Run a tool in ``root`` in this process."""
    arguments = list(map(str, words))
    if name != 'image_demo.py':
        # MMEngine keeps state under this name.
        arguments += [] if '--cfg-options' in arguments else ['--cfg-options']
        arguments.append(f'experiment_name=classes_{next(_numbers)}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, 'argv', [name, *arguments])
        # As in a new process: loggers of earlier runs write to streams that pytest has closed.
        patch.setattr(MMLogger, '_instance_dict', OrderedDict())
        runpy.run_path(str(TOOLS / name), run_name='__main__')


def coco(categories: Categories, drawn: Iterable[str], first_image: int = 1) -> dict[str, Any]:
    """One image per drawn class, named like the class; the id of an image says nothing about the class."""
    ids = {name: number for number, name in categories}
    images, annotations = [], []
    for number, name in enumerate(drawn):
        images.append(dict(id=first_image + number, file_name=f'{name}.png', width=32, height=32))
        box = dict(bbox=[4, 6, 20, 16], area=320, iscrowd=0)
        annotations.append(dict(box, id=1 + number, image_id=first_image + number, category_id=ids[name]))
    listed = [dict(id=number, name=name) for number, name in categories]
    return dict(images=images, annotations=annotations, categories=listed)


def write_detection(root: Path, train: Categories, val: Categories, drawn: Sequence[str]) -> None:
    (root / 'images').mkdir(parents=True)
    for name in drawn:
        image = Image.new('RGB', (32, 32))
        ImageDraw.Draw(image).rectangle((4, 6, 23, 21), fill=COLOURS[name])
        image.save(root / 'images' / f'{name}.png')
    (root / 'train.json').write_text(json.dumps(coco(train, drawn)))
    (root / 'val.json').write_text(json.dumps(coco(val, tuple(reversed(drawn)), first_image=40)))


def write_folders(
    root: Path, names: Iterable[str] = ('blue', 'green', 'red'), splits: Iterable[str] = ('train', 'val')
):
    for split in splits:
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            Image.new('RGB', (32, 32), COLOURS[name]).save(folder / 'image.png')


def config_file(path: Path, base: Path, classes: Sequence[str] | None = None, **changes: Any) -> Path:
    """A config that inherits from ``base``, with ``classes`` in all its data sets."""
    settings = dict(changes)
    if classes is not None:
        settings['model'] = {'num_classes': len(classes), **settings.get('model', {})}
        for split in ('train', 'val', 'test'):
            dataset = {'metainfo': {'classes': tuple(classes)}}
            loader = settings.setdefault(f'{split}_dataloader', {})
            loader['dataset'] = {**dataset, **loader.get('dataset', {})}
    path.write_text('\n'.join([f'_base_ = {str(base)!r}', *(f'{key} = {value!r}' for key, value in settings.items())]))
    return path


@contextmanager
def drawn_names() -> Iterator[list[tuple[str, str]]]:
    """Record the pairs of an image's name and a name that is drawn into it."""
    pairs: list[tuple[str, str]] = []
    add, write = DetLocalVisualizer.add_datasample, DetLocalVisualizer.draw_texts

    def add_datasample(self, name, image, data_sample=None, **options):
        self.image_name = Path(data_sample.img_path).stem
        return add(self, name, image, data_sample, **options)

    def draw_texts(self, texts, *arguments, **options):
        pairs.append((self.image_name, texts.partition(':')[0]))
        return write(self, texts, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetLocalVisualizer, 'add_datasample', add_datasample)
        patch.setattr(DetLocalVisualizer, 'draw_texts', draw_texts)
        yield pairs


def names_in_results(results: Path, annotations: Path) -> list[tuple[str, str]]:
    """Pairs of an image's name and the name of a predicted category, both by the ids of the annotation file."""
    content = json.loads(annotations.read_text())
    images = {image['id']: Path(image['file_name']).stem for image in content['images']}
    names = {category['id']: category['name'] for category in content['categories']}
    return [(images[one['image_id']], names[one['category_id']]) for one in json.loads(results.read_text())]


def names_in_pickle(out: Path, annotations: Path) -> list[tuple[str, str]]:
    """Pairs of an image's name and a predicted name, once by the stored name and once by the stored id."""
    names = {one['id']: one['name'] for one in json.loads(annotations.read_text())['categories']}
    pairs = []
    for sample in pickle.loads(out.read_bytes()):
        image, found = Path(sample['img_path']).stem, sample['pred_instances']
        assert len(found['labels']) == len(found['label_names']) == len(found['category_ids'])
        pairs += [(image, name) for name in found['label_names']]
        pairs += [(image, names[number]) for number in found['category_ids']]
    return pairs


def wrong(pairs: Sequence[tuple[str, str]], expected: int) -> list[tuple[str, str]]:
    """The pairs of different names, of as many pairs as expected."""
    assert len(pairs) == expected
    return [pair for pair in pairs if pair[0] != pair[1]]


def changed(path: Path, name: str, **dataset_meta: object) -> Path:
    """A copy of a checkpoint with other metadata; None removes an entry."""
    checkpoint = read_checkpoint(path)
    meta = checkpoint['meta']['dataset_meta'] | dataset_meta
    checkpoint['meta']['dataset_meta'] = {key: value for key, value in meta.items() if value is not None}
    copy = path.with_name(f'{name}.pth_')
    torch.save(checkpoint, copy)
    return copy
