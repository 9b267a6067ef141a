"""Recognise the format of a data set from its files, and read it."""

import os
from pathlib import Path
from typing import Any, get_args

from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.prepared import coco_source, folder_source, voc_source, yolo_layout
from mmdefocus.datasets.prepared.coco_source import find_coco, read_coco_splits
from mmdefocus.datasets.prepared.folder_source import find_class_folders, read_class_folders
from mmdefocus.datasets.prepared.prepared_files import find_prepared, read_prepared_splits
from mmdefocus.datasets.prepared.source_data import Format, SourceData, Task
from mmdefocus.datasets.prepared.split_names import SPLITS
from mmdefocus.datasets.prepared.voc_source import find_voc, read_voc_splits
from mmdefocus.datasets.prepared.yolo_layout import find_yolo
from mmdefocus.datasets.prepared.yolo_source import read_yolo_splits

_LAYOUTS = (coco_source.LAYOUT, yolo_layout.LAYOUT, voc_source.LAYOUT, folder_source.LAYOUT)
_NAMES = {'coco': 'COCO', 'yolo': 'YOLO', 'voc': 'Pascal VOC', 'folders': 'class folders'}


def read_data(root: str | Path, task: Task | None = None) -> SourceData:
    """Recognise the format of a data set and read all of its splits.

    Nothing is dropped or corrected: the content has the mistakes of the files, for :func:`inspect_data` to report.

    Args:
        root: Folder of the data set, or its YAML or JSON file; or a folder that :func:`prepare_data` wrote.
        task: What the data are for; None accepts both.

    Returns:
        The data set with absolute paths.

    Raises:
        MissingFileError: The folder, or a file that the data set names, does not exist.
        DataError: The format is not recognised, several formats are, or an annotation file is unreadable as a whole.
    """
    root = Path(os.path.abspath(Path(root).expanduser()))
    if not root.exists():
        raise MissingFileError(
            f'{root} does not exist (current directory {os.getcwd()!r}); name the folder of the data set, or its YAML '
            'or JSON file'
        )
    if task is not None and task not in get_args(Task):
        raise DataError(f'task must be one of {", ".join(get_args(Task))}, got {task!r}')
    if (prepared := find_prepared(root)) is not None:
        _check_task(root, prepared.format, task)
        splits = read_prepared_splits(prepared)
        return SourceData(prepared.root, prepared.format, prepared.task, splits, prepared.notes)
    format_, layout = _recognise(root)
    _check_task(root, format_, task)
    notes: list[str] = []
    if format_ == 'coco':
        splits, notes = read_coco_splits(root, layout)
    elif format_ == 'yolo':
        splits, notes = read_yolo_splits(layout)
    elif format_ == 'voc':
        splits, notes = read_voc_splits(layout)
    else:
        splits = read_class_folders(layout)
    return SourceData(
        root=root if root.is_dir() else root.parent,
        format=format_,
        task='classification' if format_ == 'folders' else 'detection',
        splits={split: splits[split] for split in SPLITS if split in splits},
        notes=tuple(notes),
    )


def _recognise(root: Path) -> tuple[Format, Any]:
    found: dict[Format, Any] = {'coco': find_coco(root), 'yolo': find_yolo(root), 'voc': find_voc(root)}
    found = {name: layout for name, layout in found.items() if layout is not None}
    if not found and (layout := find_class_folders(root)):
        found['folders'] = layout
    if len(found) > 1:
        raise DataError(
            f'{root} has data in several formats: {", ".join(_NAMES[name] for name in found)}; expected one: name the '
            'YAML or JSON file that you mean, or move the other annotations away'
        )
    if not found:
        raise DataError(f'{root}: no data set recognised. {_describe(root)} Expected one of\n{_expected()}')
    return next(iter(found.items()))


def _check_task(root: Path, format_: Format, task: Task | None) -> None:
    if task is not None and (task == 'classification') != (format_ == 'folders'):
        raise DataError(
            f'{root} has {_NAMES[format_]}, which are for {"classification" if format_ == "folders" else "detection"}, '
            f'but the task is {task}; name another folder, or use a model of the other task'
        )


def _describe(root: Path) -> str:
    if root.is_file():
        return f'A file must end in .yaml, .yml or .json, got {root.name!r}.'
    names = sorted(path.name + ('/' if path.is_dir() else '') for path in root.iterdir())
    return f'It has {abbreviate(names)}.' if names else 'It is empty.'


def _expected() -> str:
    return '\n'.join('  ' + line for layout in _LAYOUTS for line in layout.splitlines())
