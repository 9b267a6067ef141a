"""A repaired data set as files that the tools read."""

import json
import os
from pathlib import Path

from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.staging import staged_directory

from ..prepared.source_data import SourceData, SourceSplit
from .annotated_split import is_box
from .split_repairs import complete_annotation


def write_source(source: SourceData, out: str | Path) -> list[Path]:
    """Write a data set into a new folder. The images stay where they are.

    A detection set becomes a COCO file per split, ``train.json`` and so on, with absolute paths of images. A
    classification set becomes a folder per split and class, with links to the images.

    Args:
        source: The data.
        out: Folder, which must not exist or be empty.

    Returns:
        The files or folders of the splits.

    Raises:
        DataError: ``out`` holds something, or a class has a name that is not the name of a folder.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            f'{os.fspath(out)!r} exists and is not empty; name a new folder for the repaired data with --out'
        )
    with staged_directory(out) as fresh:
        for split in source.splits.values():
            (_write_coco if source.task == 'detection' else _link_images)(split, fresh)
    return [out / (f'{name}.json' if source.task == 'detection' else name) for name in source.splits]


def _write_coco(split: SourceSplit, out: Path) -> None:
    images = [
        image | dict(file_name=os.path.abspath(split.image_root / image['file_name']))
        if isinstance(image, dict) and isinstance(image.get('file_name'), str)
        else image
        for image in split.content['images']
    ]
    # The evaluation needs area and iscrowd, which other formats lack.
    annotations = [
        complete_annotation(ann) if isinstance(ann, dict) and is_box(ann.get('bbox')) else ann
        for ann in split.content['annotations']
    ]
    content = split.content | dict(images=images, annotations=annotations)
    (out / f'{split.name}.json').write_text(json.dumps(content), 'utf-8')


def _link_images(split: SourceSplit, out: Path) -> None:
    names = {category['id']: category['name'] for category in split.content['categories']}
    for image in split.content['images']:
        name = names[image['category_id']]
        if not name or Path(name).name != name:
            raise DataError(f'the class {name!r} must have a name that a folder can have; rename it')
        inner = Path(image['file_name'])
        inner = inner.relative_to(name) if inner.parts[0] == name else Path(inner.name)
        link = out / split.name / name / inner
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.abspath(split.image_root / image['file_name']))
