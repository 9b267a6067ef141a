"""COCO-format sets as they are found: where their files are, and what they say."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdefocus.datasets.coco_checks import load_coco
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.prepared.source_data import SourceSplit
from mmdefocus.datasets.prepared.split_names import paths_by_split, split_of

LAYOUT = """\
COCO: annotations/instances_train.json, annotations/instances_val.json, train/*.jpg, val/*.jpg
      train/_annotations.coco.json and train/*.jpg, valid/… (Roboflow)
      train.json, val.json, images/*.jpg; or one *.json with images"""
_ROBOFLOW = '_annotations.coco.json'
# Images that decide which of the possible folders has them.
_PROBES = 20


@dataclass(frozen=True)
class CocoLayout:
    """Annotation file of every split, and JSON files beside them that are not read."""

    files: dict[str, Path]
    others: tuple[Path, ...] = ()


def find_coco(root: Path) -> CocoLayout | None:
    """Return where the annotation files of a COCO-format set are; None if there are none.

    Args:
        root: Folder, or one annotation file.

    Raises:
        DataError: Several files stand for the same split, or are in several of the known places.
    """
    if root.is_file():
        return CocoLayout({split_of(root.stem) or 'train': root}) if root.suffix.lower() == '.json' else None
    folders = [root / name for name in ('annotations', 'Annotations') if (root / name).is_dir()]
    exported = {split: path / _ROBOFLOW for split, path in paths_by_split(_folders(root)).items()}
    places = [paths_by_split(_json_files(folder)) for folder in folders[:1]]
    places += [{split: path for split, path in exported.items() if path.is_file()}, paths_by_split(_json_files(root))]
    places = [place for place in places if place]
    if len(places) > 1:
        listed = '; '.join(', '.join(str(path) for path in place.values()) for place in places)
        raise DataError(
            f'{root} has annotation files in several places: {listed}; expected one: name the file, or move the others'
        )
    candidates = [path for folder in (*folders[:1], root) for path in _json_files(folder)]
    if places:
        files = places[0]
        return CocoLayout(files, tuple(path for path in candidates if path not in files.values()))
    described = [path for path in candidates if _mentions_images(path)]
    if len(described) > 1:
        raise DataError(
            f'{root} has several annotation files, {", ".join(path.name for path in described)}, whose names say no '
            'split; expected train.json, val.json or one file: rename them, or name the file'
        )
    return CocoLayout({'train': described[0]}) if described else None


def read_coco_splits(root: Path, layout: CocoLayout) -> tuple[dict[str, SourceSplit], list[str]]:
    """Read all splits without checking their entries.

    Returns:
        Splits by name, and notes.

    Raises:
        DataError: A file is not in COCO format.
    """
    splits = {}
    for split, path in layout.files.items():
        content = load_coco(path, repr(str(path)), test_mode=split != 'train')
        splits[split] = SourceSplit(split, _image_root(root, path, content, split), content, (path,))
    notes = []
    if layout.others:
        notes.append(f'Not read, as their names say no split: {", ".join(path.name for path in layout.others)}.')
    return splits, notes


def _image_root(root: Path, path: Path, content: dict[str, Any], split: str) -> Path:
    """Return the folder that has the most of the first images; the folder of the file if none has one."""
    suffix = re.sub(r'^(instances|annotations)_', '', path.stem)
    names = dict.fromkeys((suffix, split, *(f'{split}{year}' for year in (2017, 2014)), 'valid', 'validation'))
    wanted = [name for name in names if split == 'val' or not name.startswith('valid')]
    above = [path.parent, path.parent.parent] if path.parent.name.lower() == 'annotations' else [path.parent]
    if root.is_file():
        above.append(path.parent.parent)
    candidates = [base / name for base in above for name in wanted]
    candidates += [base / 'images' / name for base in above for name in wanted]
    candidates += [base / 'images' for base in above] + above
    images = [image.get('file_name') for image in content['images'][:_PROBES] if isinstance(image, dict)]
    probes = [name for name in images if isinstance(name, str)]

    def found(folder: Path) -> int:
        return sum((folder / name).is_file() for name in probes) if folder.is_dir() else -1

    best = max(candidates, key=found)
    return best if found(best) >= 0 else path.parent


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()]


def _json_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob('*.json') if path.is_file() and not path.name.startswith('.'))


def _mentions_images(path: Path) -> bool:
    content = path.read_bytes()
    return b'"images"' in content and b'"annotations"' in content
