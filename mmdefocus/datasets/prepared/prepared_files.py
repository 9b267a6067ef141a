"""The file that describes a prepared data set, and the annotation files that it names."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from mmdefocus.datasets.coco_checks import load_coco
from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.prepared.image_headers import read_size
from mmdefocus.datasets.prepared.source_data import PreparedData, PreparedSplit, SourceSplit

NAME = 'data.json'
FORMAT_VERSION = 1


def write_description(data: PreparedData, folder: Path) -> None:
    """Write ``data.json``. Annotation files are named relative to the folder, so that it may be moved."""
    splits = {name: replace(split, ann_file=Path(split.ann_file.name)) for name, split in data.splits.items()}
    content = dict(asdict(replace(data, splits=splits)), format_version=FORMAT_VERSION)
    (folder / NAME).write_text(json.dumps(content, default=str, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def load_prepared(path: str | Path) -> PreparedData:
    """Read what :func:`prepare_data` returned.

    Args:
        path: ``data.json``, or its folder.

    Returns:
        The description, with absolute paths.

    Raises:
        MissingFileError: The file does not exist.
        DataError: It was not written by :func:`prepare_data` of this version.
    """
    path = Path(path).expanduser().absolute()
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist; prepare the data set first')
    try:
        content = json.loads(path.read_bytes())
        version = content.pop('format_version')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is not the description of a prepared data set; prepare it again') from error
    if version != FORMAT_VERSION:
        raise DataError(
            f'{path} has version {version!r}, expected {FORMAT_VERSION}: another version of mmdefocus prepared it; '
            'prepare it again'
        )
    splits = {
        name: PreparedSplit(
            **dict(
                split,
                image_root=Path(split['image_root']),
                ann_file=path.parent / split['ann_file'],
                largest=tuple(split['largest']),
            )
        )
        for name, split in content['splits'].items()
    }
    lists = {key: tuple(content[key]) for key in ('classes', 'category_ids', 'notes')}
    return PreparedData(**dict(content, root=Path(content['root']), splits=splits, **lists))


def find_prepared(root: Path) -> PreparedData | None:
    """Return the description of a folder that :func:`prepare_data` wrote, or of its ``data.json``; None for others."""
    file = root / NAME if root.is_dir() else root
    if file.name != NAME or not file.is_file() or b'"format_version"' not in file.read_bytes():
        return None
    return load_prepared(file)


def read_prepared_splits(data: PreparedData) -> dict[str, SourceSplit]:
    """Read the annotation files of a prepared data set."""
    return {name: _read_split(name, split, data) for name, split in data.splits.items()}


def _read_split(name: str, split: PreparedSplit, data: PreparedData) -> SourceSplit:
    if data.task == 'detection':
        content = load_coco(split.ann_file, repr(str(split.ann_file)), test_mode=True)
        return SourceSplit(name, split.image_root, content, (split.ann_file,))
    images = []
    for number, line in enumerate(split.ann_file.read_text(encoding='utf-8').splitlines(), 1):
        file_name, _, label = line.rpartition(' ')
        width, height = read_size(split.image_root / file_name) or (None, None)
        images.append(dict(id=number, file_name=file_name, width=width, height=height, category_id=int(label)))
    categories = [dict(id=label, name=one) for label, one in enumerate(data.classes)]
    content = dict(images=images, annotations=[], categories=categories)
    return SourceSplit(name, split.image_root, content, (split.ann_file,))
