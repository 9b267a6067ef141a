"""Concatenation of data sets with the same classes."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import ConcatDataset
from mmengine.registry import DATASETS

from mmdefocus.datasets.coco_checks import abbreviate
from mmdefocus.datasets.errors import DataError


@DATASETS.register_module()
class DefocusConcatDataset(ConcatDataset):
    """MMEngine's ``ConcatDataset`` for data sets with the same classes in the same order.

    MMDetection's ``ConcatDataset`` joins data sets whose labels mean different things, with a list in place of the
    metainfo. Here the metainfo is that of the first part. It has ``category_ids`` only if all parts have the same ones:
    equal classes may have other ids in another annotation file. The tools replace ``ConcatDataset`` by this class.

    Args:
        datasets: Data sets or their configs.
        lazy_init: Do not load annotations yet.
        ignore_keys: For compatibility: of the metainfo, only the classes must be equal.

    Raises:
        DataError: The classes, or their order, differ.
    """

    def __init__(self, datasets: Sequence[Any], lazy_init: bool = False, ignore_keys: Any = None) -> None:
        parts = [DATASETS.build(one) if isinstance(one, dict) else one for one in datasets]
        _check_classes(parts)
        super().__init__(parts, lazy_init, list({key for part in parts for key in part.metainfo}))
        ids = self._metainfo.pop('category_ids', None)
        if ids is not None and all(part.metainfo.get('category_ids') == ids for part in parts):
            self._metainfo['category_ids'] = ids

    def full_init(self) -> None:
        """Load the annotations of all parts."""
        super().full_init()
        self._metainfo['cumulative_sizes'] = self.cumulative_sizes  # as in MMDetection

    def get_dataset_source(self, idx: int) -> int:
        """Return the number of the part that holds an image, for MMDetection's samplers."""
        return self._get_ori_dataset_idx(idx)[0]


def _check_classes(parts: Sequence[Any]) -> None:
    first = _names(parts[0])
    for number, part in enumerate(parts[1:], start=1):
        names = _names(part)
        if names == first:
            continue
        shown = [abbreviate(one or (), most=8) for one in (first, names)]
        kind = (
            'the same classes in different orders'
            if first and names and sorted(first) == sorted(names)
            else 'different classes'
        )
        raise DataError(
            f'the parts 0 and {number} of a ConcatDataset have {kind}, so that a label would mean two things: '
            f'{shown[0]} in {_source(parts[0])}; {shown[1]} in {_source(part)}. Give both the same classes in the same '
            'order (metainfo=dict(classes=...), or classes=[...] of image folders)'
        )


def _names(dataset: Any) -> tuple[str, ...] | None:
    classes = dataset.metainfo.get('classes')
    return None if classes is None else tuple(classes)


def _source(dataset: Any) -> str:
    return repr(getattr(dataset, 'ann_file', '') or getattr(dataset, 'img_prefix', '') or type(dataset).__name__)
