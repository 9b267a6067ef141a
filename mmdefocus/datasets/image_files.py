"""Errors of image files that name the file: before anything is loaded, and in a pipeline."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import Compose

from mmdefocus.datasets.errors import DataError, MissingFileError

# Suffixes of image files, in lower case.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')


def find_missing_files(paths: Sequence[str]) -> list[str]:
    """Return the paths that do not exist, after one listing per folder."""
    found: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, base = os.path.split(path)
        if folder not in found:
            found[folder] = set(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else set()
        # Some file systems ignore case, so that a file may exist under a name that the listing lacks.
        if base not in found[folder] and not os.path.exists(path):
            missing.append(path)
    return missing


def check_files_exist(name: str, paths: Sequence[str], pipeline: Compose) -> None:
    """Check that image files exist, with one listing per folder.

    Nothing is checked if the pipeline loads no files, or loads them from storage other than a file system.

    Args:
        name: Name of the annotation file in messages.
        paths: Image files.
        pipeline: Transforms that will load them.

    Raises:
        MissingFileError: A file is missing.
    """
    loaders = [step for step in pipeline.transforms if isinstance(step, LoadImageFromFile)]
    storages = {(step.backend_args or {}).get('backend', 'local') for step in loaders}
    if storages != {'local'}:
        return
    missing = find_missing_files([path for path in paths if '://' not in path])
    if missing:
        raise MissingFileError(
            f'{name} lists {len(paths)} images, of which {len(missing)} do not exist, the first is {missing[0]!r} '
            f'(current directory {os.getcwd()!r}); check data_root, data_prefix and the file names in the annotation '
            'file'
        )


class ErrorsNameImages:
    """Mixin for data sets of MMEngine's ``BaseDataset``: errors of the pipeline name the image."""

    pipeline: Compose
    get_data_info: Callable[[int], dict[str, Any]]

    def prepare_data(self, idx: int) -> Any:
        """Load and transform an image.

        Args:
            idx: Index in the data set.

        Returns:
            Output of the pipeline.

        Raises:
            MissingFileError: The file does not exist.
            DataError: The image cannot be loaded, or a later step of the pipeline fails.
        """
        image = self.get_data_info(idx)
        with errors_name(image):
            return self.pipeline(image)


@contextmanager
def errors_name(image: Mapping[str, Any]) -> Iterator[None]:
    """Make the errors of a pipeline name the image that it processed.

    Args:
        image: Entry of a data set with ``img_path``.

    Raises:
        DataError: In place of an error that does not name the file; its message includes that error, its cause.
    """
    try:
        yield
    except Exception as error:
        if 'img_path' not in image or image['img_path'] in str(error):
            raise
        size = f' ({image["width"]}x{image["height"]} pixels)' if 'width' in image else ''
        step = f' in {failed}' if (failed := _failed_step(error)) else ''
        raise DataError(
            f'image file {image["img_path"]!r}{size}: the pipeline failed{step} with {type(error).__name__}: '
            f'{" ".join(str(error).split())}; correct the steps of the pipeline, their order and their settings in the '
            'config'
        ) from error


def _failed_step(error: BaseException) -> str | None:
    """Return the class of the transform that raised an error, the outermost if it calls others."""
    traceback = error.__traceback__
    while traceback is not None:
        step = traceback.tb_frame.f_locals.get('self')
        if isinstance(step, BaseTransform):
            return type(step).__name__
        traceback = traceback.tb_next
    return None
