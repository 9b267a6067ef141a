"""Annotation files of a classification set: lines ``path label``, and the names of the classes."""

from pathlib import Path

from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.source_data import PreparedData, PreparedSplit, SourceData, SourceSplit


def write_classification(source: SourceData, out: Path) -> PreparedData:
    """Write ``train.txt``, ``val.txt``, … and ``classes.txt``, which ``DefocusImageFolder`` reads.

    Raises:
        DataError: There are fewer than two classes, one has no training image, or a name cannot be written in a line.
    """
    categories = source.splits['train'].content['categories']
    labels = {category['id']: label for label, category in enumerate(categories)}
    classes = [category['name'] for category in categories]
    if len(classes) < 2:
        raise DataError(
            f'{source.root} has {len(classes)} classes; a classifier needs at least two, each a folder of images'
        )
    trained = {image['category_id'] for image in source.splits['train'].content['images']}
    if empty := [category['name'] for category in categories if category['id'] not in trained]:
        raise DataError(
            f'{source.root}: train has no image of the classes {abbreviate(empty)}; expected images of all '
            'classes in train: add images, or remove or rename these folders'
        )
    splits = {name: _write_split(split, labels, out) for name, split in source.splits.items()}
    (out / 'classes.txt').write_text(''.join(f'{_checked(name)}\n' for name in classes), encoding='utf-8')
    return PreparedData(source.root, source.format, source.task, tuple(classes), splits)


def _write_split(split: SourceSplit, labels: dict[int, int], out: Path) -> PreparedSplit:
    images = sorted(split.content['images'], key=lambda image: image['file_name'])
    lines = [f'{_checked(image["file_name"])} {labels[image["category_id"]]}\n' for image in images]
    file = out / f'{split.name}.txt'
    file.write_text(''.join(lines), encoding='utf-8')
    largest = max(image['width'] for image in images), max(image['height'] for image in images)
    return PreparedSplit(split.image_root, file, len(images), len(images), largest, 1)


def _checked(name: str) -> str:
    # Readers separate lines as str.splitlines does, and strip blanks at their ends.
    if name.splitlines() != [name] or name != name.strip():
        raise DataError(
            f'the name {name!r} has a line break, or a blank at one of its ends, which a list of images cannot have; '
            'rename the file or folder'
        )
    return name
