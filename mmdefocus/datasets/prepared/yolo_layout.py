"""YOLO sets: the YAML file that names classes and splits, and where images and labels are."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.image_files import IMAGE_SUFFIXES
from mmdefocus.datasets.prepared.image_headers import list_images
from mmdefocus.datasets.prepared.split_names import SPLITS, paths_by_split

LAYOUT = """\
YOLO: data.yaml (names, train, val), images/train/*.jpg, labels/train/*.txt, images/val/…
      data.yaml, train/images/*.jpg, train/labels/*.txt, valid/… (Roboflow)"""


@dataclass(frozen=True)
class YoloLayout:
    """What a YAML file says.

    Attributes:
        path: The YAML file.
        names: Class names by id, in the order of the ids.
        keypoint_values: Numbers of a keypoint label behind its box; 0 without keypoints.
        images: Image files of every split.
        notes: Decisions, one sentence each.
    """

    path: Path
    names: dict[int, str]
    keypoint_values: int
    images: dict[str, list[Path]]
    notes: tuple[str, ...]


def find_yolo(root: Path) -> YoloLayout | None:
    """Return what the YAML file of a YOLO set says; None if there is no such file.

    Args:
        root: Folder, or the YAML file.

    Raises:
        DataError: The file is unreadable or contradictory, several files could be meant, or it names images that do
            not exist.
    """
    if root.is_file():
        return _read_layout(root) if root.suffix.lower() in ('.yaml', '.yml') else None
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in ('.yaml', '.yml') and path.is_file()]
    described = [path for path in found if {'names', 'train'} <= set(_with_splits(path, _load(path), []))]
    known = [path for path in described if path.stem in ('data', 'dataset')]
    described = known if len(known) == 1 else described
    if len(described) > 1:
        raise DataError(
            f'{root} has several YAML files with names and train: {", ".join(path.name for path in described)}; '
            'expected one, such as data.yaml: name the file that you mean'
        )
    return _read_layout(described[0]) if described else None


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f'{path} is not valid YAML ({" ".join(str(error).split())}); correct it') from error
    return content if isinstance(content, dict) else {}


def _with_splits(path: Path, content: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Add the splits of the folders beside the file if it names none, as supervision writes it."""
    if 'names' not in content or content.keys() & {*SPLITS, 'valid', 'path'}:
        return content
    folders = paths_by_split(place for place in path.parent.iterdir() if (place / 'images').is_dir())
    places = {split: f'{folder.name}/images' for split, folder in folders.items()}
    if not places and (path.parent / 'images').is_dir():
        inner = paths_by_split(place for place in (path.parent / 'images').iterdir() if place.is_dir())
        places = {split: f'images/{folder.name}' for split, folder in inner.items()}
    if places:
        notes.append(f'{path.name} names no splits: they are {", ".join(places.values())}.')
    return {**content, **places}


def _read_layout(path: Path) -> YoloLayout:
    notes: list[str] = []
    content = _with_splits(path, _load(path), notes)
    names = _names(path, content)
    images = {}
    for split in SPLITS:
        value = content.get(split, content.get('valid') if split == 'val' else None)
        if not value:
            continue
        listed = _images(path, content, split, value, notes)
        if listed is not None:
            images[split] = listed
    if not images:
        raise MissingFileError(
            f'{path} names no folder of images that exists: '
            f'{", ".join(f"{split}: {content.get(split)}" for split in SPLITS)} (searched from {path.parent}); '
            'correct path, train and val in it'
        )
    return YoloLayout(path, names, _keypoint_values(path, content), images, tuple(notes))


def _names(path: Path, content: dict[str, Any]) -> dict[int, str]:
    names = content.get('names')
    if isinstance(names, list):
        named = dict(enumerate(names))
    elif isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        named = dict(sorted((int(key), name) for key, name in names.items()))
    else:
        raise DataError(
            f'{path}: names must be a list of class names, or have a whole number before each name, got {names!r}; '
            'write names: [cat, dog]'
        )
    wrong = [name for name in named.values() if isinstance(name, (bool, list, dict)) or name in (None, '')]
    if wrong or not named:
        raise DataError(f'{path}: names must be class names, got {names!r}; write names such as yes or no in quotes')
    count = content.get('nc')
    if count is not None and count != len(named):
        raise DataError(
            f'{path} contradicts itself: nc is {count!r}, but names has {len(named)} classes; correct one of them'
        )
    return {number: str(name) for number, name in named.items()}


def _keypoint_values(path: Path, content: dict[str, Any]) -> int:
    shape = content.get('kpt_shape')
    if shape is None:
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(type(one) is int and one > 0 for one in shape):
        return shape[0] * shape[1]
    raise DataError(f'{path}: kpt_shape must be [number of keypoints, 2 or 3], got {shape!r}; correct or remove it')


def _images(path: Path, content: dict[str, Any], split: str, value: Any, notes: list[str]) -> list[Path] | None:
    """Return the image files of a split; None with a note if nothing of what the file names exists."""
    entries = value if isinstance(value, list) else [value]
    images: list[Path] = []
    missing = []
    for entry in entries:
        if not isinstance(entry, str):
            raise DataError(f'{path}: {split} must be a path or a list of paths, got {value!r}; correct it')
        place = _resolve(path, content, entry)
        if place is None:
            missing.append(entry)
        elif place.is_file():
            images += _listed(place, content, path)
        else:
            images += list_images(place, nested=True)
    if missing and (images or split == 'train'):
        raise MissingFileError(
            f'{path} names {", ".join(missing)} for {split}, which does not exist (searched from {path.parent}); '
            'correct path and train in it, or download the images'
        )
    if missing:
        notes.append(f'{path.name} names {", ".join(missing)} for {split}, which does not exist: there is no {split}.')
        return None
    if not images:
        raise DataError(
            f'{path} names {value!r} for {split}, but there is no image in it; images end in '
            f'{", ".join(IMAGE_SUFFIXES)}: correct the path, or convert the images'
        )
    return list(dict.fromkeys(images))


def _resolve(path: Path, content: dict[str, Any], entry: str) -> Path | None:
    base = path.parent / str(content.get('path') or '')
    # Roboflow writes ../train/images beside the folder train. Other files name the folder of another computer.
    inner = entry
    while inner.startswith('../'):
        inner = inner[3:]
    for place in (base / entry, path.parent / entry, base / inner, path.parent / inner):
        if place.exists():
            return Path(os.path.abspath(place))
    return None


def _listed(file: Path, content: dict[str, Any], path: Path) -> list[Path]:
    """Return the images of a text file with a path per line."""
    images = []
    for line in filter(None, map(str.strip, file.read_text(encoding='utf-8').splitlines())):
        base = path.parent / str(content.get('path') or '')
        places = [place for place in (file.parent / line, base / line, path.parent / line) if place.exists()]
        images.append(Path(os.path.abspath(places[0] if places else file.parent / line)))
    return images
