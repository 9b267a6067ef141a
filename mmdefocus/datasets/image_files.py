"""Errors of image files that name the file: before anything is loaded, and in a pipeline."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose

from mmdefocus.datasets.errors import MissingFileError


def check_files_exist(name: str, paths: Sequence[str], pipeline: Compose) -> None:
    """Look for image files with one listing per folder.

    Nothing is looked for where the pipeline loads no files, or loads them from other storage than a file system.

    Args:
        name: What to call the annotation file in messages.
        paths: Image files.
        pipeline: Transforms that will load them.

    Raises:
        MissingFileError: If a file is missing.
    """
    loaders = [step for step in pipeline.transforms if isinstance(step, LoadImageFromFile)]
    storages = {(step.backend_args or {}).get('backend', 'local') for step in loaders}
    if storages != {'local'}:
        return
    found: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        if '://' in path:
            continue
        folder, base = os.path.split(path)
        if folder not in found:
            found[folder] = set(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else set()
        # Some file systems find a file by a name that is not listed, as with other capitals.
        if base not in found[folder] and not os.path.exists(path):
            missing.append(path)
    if missing:
        raise MissingFileError(
            f'{name} lists {len(paths)} images, of which {len(missing)} do not exist, the first is {missing[0]!r} '
            f'(current directory {os.getcwd()!r}); check data_root, data_prefix and the file names in the annotation '
            'file'
        )


@contextmanager
def errors_name(image: Mapping[str, Any]) -> Iterator[None]:
    """Make errors of a pipeline say which image it was given.

    Args:
        image: Description of the image with ``img_path``, as a data set has it.

    Raises:
        ValueError: In place of any error that does not name the file; it shows that one and has it as its cause.
    """
    try:
        yield
    except Exception as error:
        if 'img_path' not in image or image['img_path'] in str(error):
            raise
        size = f' ({image["width"]}x{image["height"]} pixels)' if 'width' in image else ''
        raise ValueError(
            f'image file {image["img_path"]!r}{size}: the pipeline failed with {type(error).__name__}: {error}'
        ) from error
