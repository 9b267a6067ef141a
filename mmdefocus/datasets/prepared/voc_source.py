"""Pascal VOC sets: one XML file per image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from mmdefocus.datasets.coco_values import is_number
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.image_headers import list_images, read_size
from mmdefocus.datasets.prepared.source_data import ReadingProblem, SourceSplit
from mmdefocus.datasets.prepared.split_names import SPLITS, paths_by_split

LAYOUT = """\
Pascal VOC: Annotations/*.xml, JPEGImages/*.jpg, ImageSets/Main/train.txt, val.txt
            train/*.xml beside train/*.jpg, valid/… (Roboflow)"""
_FLAGS = ('difficult', 'truncated', 'occluded')

# supervision's loader decodes every image, stops at a damaged one, drops the flags, exchanges reversed corners, turns
# polygons into pixels, and knows no lists of splits; what it reads is compared with this module in the tests.


@dataclass(frozen=True)
class VocLayout:
    """Folder of the images, and image and XML file of every entry of a split, one of which may be missing."""

    folders: dict[str, Path]
    entries: dict[str, list[tuple[Path | None, Path | None]]]
    notes: tuple[str, ...] = ()


def find_voc(root: Path) -> VocLayout | None:
    """Return the images and XML files of all splits; None without XML files.

    Raises:
        DataError: A list of a split is empty or names neither images nor XML files.
    """
    if not root.is_dir():
        return None
    annotations = next((root / n for n in ('Annotations', 'annotations') if _has_xml(root / n)), None)
    if annotations is not None:
        return _devkit(root, annotations)
    folders = paths_by_split(path for path in root.iterdir() if path.is_dir())
    if not any(map(_has_xml, folders.values())):
        folders = {'train': root} if _has_xml(root) else {}
    if not folders:
        return None
    return VocLayout(folders, {split: _pairs(folder, folder) for split, folder in folders.items()})


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob('*.xml'))


def _pairs(images: Path, annotations: Path) -> list[tuple[Path | None, Path | None]]:
    files = {path.stem: path for path in sorted(annotations.glob('*.xml')) if not path.name.startswith('.')}
    found = [(path, files.get(path.stem)) for path in list_images(images)]
    known = {path.stem for path, _ in found}
    return [*found, *((None, path) for stem, path in files.items() if stem not in known)]


def _devkit(root: Path, annotations: Path) -> VocLayout:
    images = next((root / n for n in ('JPEGImages', 'images', 'Images') if (root / n).is_dir()), root)
    pairs = _pairs(images, annotations)
    lists = _lists(root / 'ImageSets' / 'Main')
    if not lists:
        return VocLayout({'train': images}, {'train': pairs})
    by_stem: dict[str, list[tuple[Path | None, Path | None]]] = {}
    for pair in pairs:
        by_stem.setdefault(next(path for path in pair if path is not None).stem, []).append(pair)
    entries, used, notes = {}, set(), []
    for split, file in lists.items():
        stems = [line.split()[0] for line in file.read_text(encoding='utf-8').splitlines() if line.strip()]
        if not stems:
            raise DataError(f'{file} is empty; expected the name of an image per line, without suffix')
        unknown = [stem for stem in stems if stem not in by_stem]
        if unknown:
            raise DataError(
                f'{file} names {len(unknown)} of {len(stems)} images of which there is neither image nor XML file; the '
                f'first is {unknown[0]!r}, searched in {images} and {annotations}: correct the list, or add the files'
            )
        entries[split] = [pair for stem in stems for pair in by_stem[stem]]
        used.update(stems)
    if len(used) < len(by_stem):
        notes.append(f'{len(by_stem) - len(used)} of {len(by_stem)} images are in no list of {lists["train"].parent}.')
    return VocLayout(dict.fromkeys(entries, images), entries, tuple(notes))


def _lists(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    lists = paths_by_split(folder.glob('*.txt'))
    if 'train' not in lists and (folder / 'trainval.txt').is_file():
        lists['train'] = folder / 'trainval.txt'
    return {split: lists[split] for split in SPLITS if split in lists}


def read_voc_splits(layout: VocLayout) -> tuple[dict[str, SourceSplit], list[str]]:
    """Read all splits. The classes are all names in the files, sorted, with ids from 0.

    Returns:
        Splits by name, and notes.
    """
    notes = list(layout.notes)
    problems: dict[str, list[ReadingProblem]] = {split: [] for split in layout.entries}
    parsed = {
        split: [_read_file(file, problems[split]) if file else None for _, file in entries]
        for split, entries in layout.entries.items()
    }
    objects = [label for files in parsed.values() for file in files if file for label in file['labels']]
    names = sorted({label['name'] for label in objects})
    # Pixels of VOC count from 1, and the last one is part of the box. Zeros show that a file counts edges from 0.
    first = 0 if any(0 in label['corners'][:2] for label in objects) else 1
    if objects:
        notes.append(
            'Coordinates count from 0, as xmin or ymin is 0 in some files.'
            if first == 0
            else 'Coordinates count pixels from 1, as in Pascal VOC: a box begins at xmin - 1 and ends at xmax.'
        )
    for flag in _FLAGS:
        if marked := sum(label.get(flag) == 1 for label in objects):
            notes.append(f'{marked} objects are marked {flag}; they are used like the others, and the mark is kept.')
    splits = {}
    for split, entries in layout.entries.items():
        content: dict[str, Any] = dict(
            images=[], annotations=[], categories=[dict(id=number, name=name) for number, name in enumerate(names)]
        )
        unlabelled = sum(file is None for _, file in entries)
        if unlabelled:
            notes.append(
                f'{split}: {unlabelled} of {len(entries)} images have no XML file; they count as without objects.'
            )
        for (image, _), file in zip(entries, parsed[split], strict=True):
            number = len(content['images']) + 1
            content['images'].append(_image(number, image, file, layout.folders[split]))
            for label in file['labels'] if file else []:
                content['annotations'].append(_annotation(len(content['annotations']) + 1, number, label, names, first))
        files = tuple(file for _, file in entries if file)
        splits[split] = SourceSplit(split, layout.folders[split], content, files, tuple(problems[split]))
    return splits, notes


def _image(number: int, image: Path | None, file: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    size = file['size'] if file else None
    if size is None and image is not None:
        size = read_size(image)
    width, height = size or (None, None)
    name = image.relative_to(folder).as_posix() if image else (file or {})['file_name']
    return dict(id=number, file_name=name, width=width, height=height)


def _annotation(number: int, image: int, label: dict[str, Any], names: list[str], first: int) -> dict[str, Any]:
    x1, y1, x2, y2 = label['corners']
    x1, y1 = x1 - first, y1 - first
    entry = dict(id=number, image_id=image, category_id=names.index(label['name']), bbox=[x1, y1, x2 - x1, y2 - y1])
    if label['polygon']:
        entry['segmentation'] = [[value - first for value in label['polygon']]]
    return entry | {flag: label[flag] for flag in _FLAGS if flag in label}


def _read_file(path: Path, problems: list[ReadingProblem]) -> dict[str, Any]:
    """Return ``file_name``, ``size`` (None if the file has none) and ``labels`` of an XML file."""
    try:
        tree = parse(path).getroot()
    except (OSError, ParseError, UnicodeDecodeError, DefusedXmlException) as error:
        problems.append(ReadingProblem('unreadable-label-file', path, f'{path} is not valid XML ({error})'))
        return dict(file_name=f'{path.stem}.jpg', size=None, labels=[])
    size = [_number(tree.findtext(f'size/{key}')) for key in ('width', 'height')]
    return dict(
        file_name=Path(tree.findtext('filename') or f'{path.stem}.jpg').name,
        size=size if all(value is not None and value > 0 for value in size) else None,
        labels=list(_objects(path, tree, problems)),
    )


def _objects(path: Path, tree: Element, problems: list[ReadingProblem]) -> Iterator[dict[str, Any]]:
    for number, element in enumerate(tree.findall('object'), 1):
        name = (element.findtext('name') or '').strip()
        corners = [_number(element.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
        if not name or None in corners:
            what = 'bndbox with four finite numbers' if name else 'name'
            problems.append(ReadingProblem('malformed-label', path, f'{path}, object {number}: expected a {what}'))
            continue
        points = [
            _number(point.text) for part in element.findall('polygon') for point in part.iter() if point is not part
        ]
        flags = {flag: int(value == '1') for flag in _FLAGS if (value := element.findtext(flag)) is not None}
        yield dict(flags, name=name, corners=corners, polygon=points if None not in points else [])


def _number(text: str | None) -> float | None:
    """Return a finite number, whole if it is; None for anything else."""
    try:
        value = float(text or '')
    except ValueError:
        return None
    if not is_number(value):
        return None
    return int(value) if value.is_integer() else value
