"""Check a data set of a user strictly, and write it for the data sets of this package."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.image_files import find_missing_files
from mmdefocus.datasets.prepared.classification_files import write_classification
from mmdefocus.datasets.prepared.detection_files import check_entries, write_detection
from mmdefocus.datasets.prepared.equal_files import group_equal_files
from mmdefocus.datasets.prepared.formats import read_data
from mmdefocus.datasets.prepared.prepared_files import NAME, load_prepared, write_description
from mmdefocus.datasets.prepared.source_data import PreparedData, SourceData, SourceSplit, Task
from mmdefocus.datasets.prepared.split_names import SPLITS
from mmdefocus.datasets.prepared.splitting import split_data
from mmdefocus.datasets.staging import staged_directory

_OWN_FILES = {NAME, 'classes.txt', *(f'{split}{suffix}' for split in SPLITS for suffix in ('.json', '.txt'))}


def prepare_data(
    root: str | Path, out: str | Path, val_fraction: float = 0.2, seed: int = 0, task: Task | None = None
) -> PreparedData:
    """Read a data set, split it, check it strictly and write its annotations. Images stay where they are.

    Equal files and arguments give equal bytes. An interrupted call leaves ``out`` as it was.

    Args:
        root: Folder of the data set, or its YAML or JSON file.
        out: Folder for the annotations; replaced if it holds nothing else.
        val_fraction: Part of the training images for validation, if there is no split for it.
        seed: Seed of this choice.
        task: What the data are for; None accepts both.

    Returns:
        What was written. It is also in ``out/data.json``, for :func:`load_prepared`.

    Raises:
        MissingFileError: A file that the data set names does not exist.
        DataError: The format is not recognised, the annotations are such that ``DefocusCocoDataset`` or
            ``DefocusImageFolder`` would refuse them, or ``out`` holds other files. The message names the remedy.
    """
    source = read_data(root, task)
    with _naming_the_remedy(root):
        _check_splits(source)
        return write_data(split_data(source, val_fraction, seed), out)


def write_data(source: SourceData, out: str | Path) -> PreparedData:
    """Check a data set with ``train`` and ``val`` strictly and write its annotations, as :func:`prepare_data` does.

    Args:
        source: The data set.
        out: Folder for the annotations; replaced if it holds nothing else.

    Returns:
        What was written.

    Raises:
        DataError: As for :func:`prepare_data`, without the remedy.
    """
    out = Path(os.path.abspath(Path(out).expanduser()))
    _check_out(out)
    _check_splits(source)
    with staged_directory(out) as fresh:
        write = write_classification if source.task == 'classification' else write_detection
        data = write(source, fresh)
        notes = tuple(dict.fromkeys((*source.notes, *data.notes, *_equal_images(source))))
        write_description(PreparedData(**{**vars(data), 'notes': notes}), fresh)
    return load_prepared(out)


def _check_out(out: Path) -> None:
    others = sorted(set(os.listdir(out)) - _OWN_FILES) if out.is_dir() else []
    if others or (out.exists() and not out.is_dir()):
        what = f'has other files ({", ".join(others[:5])})' if others else 'is a file'
        raise DataError(f'{out} {what}; expected a new or empty folder for the prepared annotations: name another')


def _check_splits(source: SourceData) -> None:
    for split in source.splits.values():
        _check_images(split)
        if source.task == 'detection':
            check_entries(split)


def _check_images(split: SourceSplit) -> None:
    images = split.content['images']
    if not images:
        raise DataError(f'{split.name} has no images in {split.image_root}; add images, or remove the split')
    if split.problems:
        raise DataError(
            f'{split.name}: {len(split.problems)} labels or files are unreadable; the first: '
            f'{split.problems[0].message}'
        )
    named = [image for image in images if isinstance(image, dict) and isinstance(image.get('file_name'), str)]
    missing = find_missing_files([str(split.image_root / image['file_name']) for image in named])
    if missing:
        raise MissingFileError(
            f'{split.name}: {len(missing)} of {len(images)} images do not exist; the first is {missing[0]!r}: add the '
            'files, or correct their names in the annotations'
        )
    unreadable = [image['file_name'] for image in named if image.get('width', 0) is None]
    if unreadable:
        raise DataError(
            f'{split.name}: {len(unreadable)} of {len(images)} images are unreadable; the first is '
            f'{str(split.image_root / unreadable[0])!r}: restore or remove them'
        )


def _equal_images(source: SourceData) -> list[str]:
    """Return a note about files with equal bytes in different splits."""
    splits: dict[Path, str] = {}
    for split in source.splits.values():
        for image in split.content['images']:
            splits.setdefault(split.image_root / image['file_name'], split.name)
    shared = [group for group in group_equal_files(splits) if len({splits[path] for path in group}) > 1]
    if not shared:
        return []
    first, second = shared[0][0], next(path for path in shared[0] if splits[path] != splits[shared[0][0]])
    return [
        f'{len(shared)} images are in several splits with equal bytes, so that scores are too high; the first: {first} '
        f'({splits[first]}) and {second} ({splits[second]}). check-data also finds copies with other bytes.'
    ]


@contextmanager
def _naming_the_remedy(root: str | Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        remedy = (
            f'"mmdefocus check-data {root}" lists all mistakes, and with --repair all --out OUT writes a corrected set'
        )
        raise type(error)(f'{error}\n{remedy}') from error
