"""COCO-format data with errors in place of silently dropped images or boxes."""

import logging
import os
from collections import defaultdict
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine import fileio
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmdefocus.datasets.coco_checks import check_category_ids, check_classes, read_coco
from mmdefocus.datasets.coco_masks import check_masks, loads_masks
from mmdefocus.datasets.coco_values import check_box_format, is_degenerate
from mmdefocus.datasets.errors import DataError, MissingFileError
from mmdefocus.datasets.image_files import ErrorsNameImages, check_files_exist
from mmdefocus.datasets.loading import strict_loading


@DATASETS.register_module()
class DefocusCocoDataset(ErrorsNameImages, CocoDataset):
    """MMDetection's ``CocoDataset`` with checks; the base class drops data silently.

    A label is a position in ``metainfo['classes']``: categories are found by name, in whatever order the file lists
    them. (The labels of the base class are positions among the categories of the file.) The original ids, in the order
    of the labels, are ``metainfo['category_ids']``, and so part of the checkpoints.

    The annotations (see :mod:`mmdefocus.datasets.coco_checks`) and the existence of the images are checked once, when
    the file is read. Images are checked when they are loaded: ``LoadImageFromFile`` in the pipeline acts as
    :class:`DefocusLoadImage`. Boxes that are smaller than a pixel, have no area or lie outside their image are dropped
    as in MMDetection, with a warning that counts them. If the pipeline loads masks, every other box needs one (see
    :mod:`mmdefocus.datasets.coco_masks`).

    Args:
        *args: As for MMDetection's ``CocoDataset``.
        allow_missing_categories: Ignore the categories of the file that are not in ``metainfo['classes']``. By default
            they are an error.
        **kwargs: As for MMDetection's ``CocoDataset``.

    Raises:
        MissingFileError: The annotation file or an image is missing.
        DataError: The annotations are unreadable, contradictory, do not match the classes, or hold no usable box to
            train on. Testing on images without boxes is possible; every AP is then -1.
    """

    def __init__(self, *args: Any, allow_missing_categories: bool = False, **kwargs: Any) -> None:
        self.allow_missing_categories = allow_missing_categories
        if 'pipeline' in kwargs:
            kwargs['pipeline'] = strict_loading(kwargs['pipeline'])
        super().__init__(*args, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: Any = None) -> dict[str, Any]:
        loaded = super()._load_metainfo(metainfo)
        classes, palette = loaded.get('classes'), loaded.get('palette')
        if isinstance(classes, list | tuple) and isinstance(palette, list) and len(palette) < len(classes):
            if 'palette' in (metainfo or {}):
                raise DataError(
                    f'metainfo: palette must have a colour for each of the {len(classes)} classes, got {len(palette)}'
                    "; add colours, or write palette='random'"
                )
            loaded['palette'] = 'random'  # COCO's has 80 colours
        return loaded

    def load_data_list(self) -> list[dict]:
        """Read, check and parse the annotation file.

        Returns:
            One dict per image, in the form of MMDetection's ``CocoDataset``.
        """
        name = repr(self.ann_file)
        if not fileio.exists(self.ann_file, backend_args=self.backend_args):
            raise MissingFileError(
                f'annotation file {name} does not exist (data_root={self.data_root!r}, current directory '
                f'{os.getcwd()!r}); make or download the data, or set data_root and ann_file of the data set'
            )
        if fileio.isdir(self.ann_file, backend_args=self.backend_args):
            raise DataError(
                f'the annotation file must be a file, got the directory {name}; set ann_file of the data set to the '
                'file in it'
            )
        with fileio.get_local_path(self.ann_file, backend_args=self.backend_args) as path:
            content = read_coco(path, name, self.test_mode)
        classes = self.metainfo['classes']
        ids = {entry['name']: entry['id'] for entry in content['categories']}
        check_classes(name, list(ids), classes, self.allow_missing_categories, optional=self.test_mode)
        self.cat_ids = [ids[entry] for entry in classes] if ids else self.metainfo.get('category_ids', [])
        check_category_ids(name, classes, self.cat_ids, self.metainfo.get('category_ids'))
        if self.cat_ids:
            self._metainfo['category_ids'] = list(self.cat_ids)
        self.cat2label = {cat_id: label for label, cat_id in enumerate(self.cat_ids)}

        self.cat_img_map = defaultdict(list)
        by_image = defaultdict(list)
        for ann in content['annotations']:
            by_image[ann['image_id']].append(ann)
            self.cat_img_map[ann['category_id']].append(ann['image_id'])
        self._report_boxes(name, content, by_image)
        if loads_masks(self.pipeline):
            self._report_masks(name, content)
        return [
            self.parse_data_info(dict(raw_img_info=dict(image, img_id=image['id']), raw_ann_info=by_image[image['id']]))
            for image in content['images']
        ]

    def filter_data(self) -> list[dict]:
        """Apply ``filter_cfg`` as MMDetection does.

        Returns:
            The remaining images.

        Raises:
            MissingFileError: One of them does not exist.
            DataError: None remains.
        """
        kept = super().filter_data()
        if not kept:
            raise DataError(
                f'{self.ann_file!r}: filter_cfg={self.filter_cfg} leaves none of {len(self.data_list)} images; it must '
                'leave at least one: relax it, or remove it from the data set'
            )
        check_files_exist(repr(self.ann_file), [image['img_path'] for image in kept], self.pipeline)
        return kept

    def _report_boxes(self, name: str, content: dict[str, Any], by_image: dict[Any, list[dict]]) -> None:
        total = len(content['annotations'])
        beyond = check_box_format(name, content['images'], content['annotations'])
        degenerate = [
            ann['id']
            for image in content['images']
            for ann in by_image[image['id']]
            if is_degenerate(ann, image['width'], image['height'])
        ]
        others = sum(ann['category_id'] not in self.cat2label for ann in content['annotations'])
        if degenerate:
            _warn(
                f'{name}: {len(degenerate)} of {total} boxes are smaller than a pixel, have no area or lie outside '
                f'their image, and are ignored (the first is annotation {degenerate[0]})'
            )
        if 10 * beyond > total:
            _warn(
                f'{name}: {beyond} of {total} boxes reach beyond their image; do they belong to images '
                'of a different size?'
            )
        if others:
            _warn(f'{name}: {others} of {total} boxes are ignored: their categories are not in the classes')
        crowds = sum(bool(ann.get('iscrowd')) for ann in content['annotations'])
        usable = any(
            not is_degenerate(ann, image['width'], image['height'])
            and ann['category_id'] in self.cat2label
            and not ann.get('iscrowd')
            and not ann.get('ignore')
            for image in content['images']
            for ann in by_image[image['id']]
        )
        if not usable and not self.test_mode:
            remedy = 'give the data set a file with boxes'
            if degenerate:
                example = next(ann for ann in content['annotations'] if ann['id'] == degenerate[0])
                remedy = (
                    'correct the boxes, which must be [x, y, width, height] in pixels (not fractions of the image), '
                    f'with positive sizes, inside their image; the first degenerate one is {example["bbox"]}'
                )
            raise DataError(
                f'{name} has no usable box to train on ({total} boxes, {len(degenerate)} of them degenerate, {crowds} '
                f'crowds); {remedy}'
            )
        if not usable:
            _warn(f'{name} has no usable box ({total} annotations): every AP will be -1')

    def _report_masks(self, name: str, content: dict[str, Any]) -> None:
        images = {image['id']: image for image in content['images']}
        loaded = []
        for ann in content['annotations']:
            image = images[ann['image_id']]
            is_dropped = ann.get('ignore') or is_degenerate(ann, image['width'], image['height'])
            if ann['category_id'] in self.cat2label and not is_dropped:
                loaded.append(ann)
        without_area = check_masks(name, content['images'], loaded)
        if without_area:
            _warn(
                f'{name}: {len(without_area)} of {len(loaded)} boxes are ignored in training: none of the polygons of '
                f'their masks has three points (the first is annotation {without_area[0]})'
            )


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
