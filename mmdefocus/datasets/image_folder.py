"""Classification data as one folder of images per class, with checks of folders and labels."""

import os
from collections.abc import Sequence
from typing import Any

from mmengine import fileio
from mmengine.registry import DATASETS
from mmpretrain.datasets.custom import CustomDataset, find_folders, get_samples

from mmdefocus.datasets.coco_checks import abbreviate, check_distinct
from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.image_files import IMAGE_SUFFIXES, ErrorsNameImages, check_files_exist
from mmdefocus.datasets.loading import strict_loading


@DATASETS.register_module()
class DefocusImageFolder(ErrorsNameImages, CustomDataset):
    """MMPreTrain's ``CustomDataset`` with checks; the base class drops images and mixes up classes silently.

    The sub-folders of ``data_root/data_prefix`` are the classes, in the order of ``classes`` if it is given (as for a
    validation set, from its training set) and else sorted by name. Images may be in nested folders; hidden files and
    folders are ignored. With ``ann_file``, which has lines ``path label``, labels are numbers and ``classes`` is
    required. In both forms ``LoadImageFromFile`` in the pipeline acts as :class:`DefocusLoadImage`.

    Args:
        *args: As for MMPreTrain's ``CustomDataset``.
        extensions: Suffixes of image files, in lower case.
        **kwargs: As for MMPreTrain's ``CustomDataset``.

    Raises:
        MissingFileError: The folder, or an image in ``ann_file``, does not exist.
        DataError: There are fewer than two classes, a class is listed twice or has no images, there are folders other
            than ``classes``, or a label is outside their range.
    """

    def __init__(self, *args: Any, extensions: Sequence[str] = IMAGE_SUFFIXES, **kwargs: Any) -> None:
        if 'pipeline' in kwargs:
            kwargs['pipeline'] = strict_loading(kwargs['pipeline'])
        classes = kwargs.get('classes')
        if isinstance(classes, str):
            _require_file(classes, 'file of class names', 'classes of the data set to a file with a name per line')
        super().__init__(*args, extensions=extensions, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Find all images and their labels.

        Returns:
            One dict per image with ``img_path`` and ``gt_label``.
        """
        if not fileio.isdir(self.img_prefix):
            raise MissingFileError(
                f'image folder {self.img_prefix!r} does not exist (data_root={self.data_root!r}, current directory '
                f'{os.getcwd()!r}); set data_root to the folder that has a folder per split, and in each of these one '
                'per class'
            )
        if self.CLASSES is not None:
            check_distinct(self.CLASSES)
        if self.ann_file:
            _require_file(
                self.ann_file, 'annotation file', 'ann_file of the data set to a file with lines "path label"'
            )
            self._check_lines()
        data_list = super().load_data_list()
        if self.ann_file and self.with_label:
            self._check_labels(data_list)
        if self.ann_file:
            check_files_exist(repr(self.ann_file), [entry['img_path'] for entry in data_list], self.pipeline)
        return data_list

    def is_valid_file(self, filename: str) -> bool:
        """Return True if a path below the class folder is an image that is not hidden."""
        return super().is_valid_file(filename) and not any(part.startswith('.') for part in filename.split(os.sep))

    def _find_samples(self) -> list:
        if not self.with_label:
            return super()._find_samples()
        folders = [name for name in find_folders(self.img_prefix)[0] if not name.startswith('.')]
        classes = list(folders if self.CLASSES is None else self.CLASSES)
        if set(folders) != set(classes):
            raise DataError(
                f'{self.img_prefix!r} has folders other than the classes (those of the training set, or of the '
                f'config): only in the folder {abbreviate(sorted(set(folders) - set(classes)))}; only in the classes '
                f'{abbreviate(sorted(set(classes) - set(folders)))}. Rename, add or remove folders'
            )
        if len(classes) < 2:
            found = f'only one folder, {classes[0]!r}' if classes else 'no folder'
            raise DataError(
                f'{self.img_prefix!r} has {found}; a classifier needs at least two classes, each a folder of images: '
                'move the images into such folders, or set data_root and data_prefix to the folder that has them'
            )
        self.folder_to_idx = {name: label for label, name in enumerate(classes)}
        self._metainfo['classes'] = tuple(classes)
        samples, empty = get_samples(self.img_prefix, self.folder_to_idx, self.is_valid_file)
        if empty:
            raise DataError(
                f'{self.img_prefix!r} has class folders without an image: {abbreviate(sorted(empty))}; images end in '
                f'{", ".join(sorted(self.extensions))}. Fill or remove these folders'
            )
        return samples

    def _check_lines(self) -> None:
        lines = fileio.get_text(self.ann_file).splitlines()
        if not lines:
            raise DataError(
                f'{self.ann_file!r} must list images, got an empty file; write a line "path label" for each'
            )
        for number, line in enumerate(lines, 1):
            label = line.strip().rpartition(' ')[2] if ' ' in line.strip() else ''
            if self.with_label and not label.lstrip('-').isdecimal():
                raise DataError(
                    f'{self.ann_file!r}: line {number} must be "path label" with a blank between them and a number as '
                    f'the label, got {line!r}; write the position of the class in classes, from 0'
                )

    def _check_labels(self, data_list: list[dict]) -> None:
        if self.CLASSES is None:
            raise DataError(f'{self.ann_file!r} gives labels as numbers; name them with classes=[...] of the data set')
        for entry in data_list:
            if not 0 <= entry['gt_label'] < len(self.CLASSES):
                raise DataError(
                    f'{self.ann_file!r} gives {entry["img_path"]!r} the label {entry["gt_label"]}; labels must be from '
                    f'0 to {len(self.CLASSES) - 1}, for the {len(self.CLASSES)} classes of the data set; correct the '
                    'label, or name more classes'
                )


def _require_file(path: str, what: str, setting: str) -> None:
    if not fileio.isfile(os.path.expanduser(path)):
        raise MissingFileError(
            f'{what} {path!r} does not exist (current directory {os.getcwd()!r}); make it, or set {setting}'
        )
