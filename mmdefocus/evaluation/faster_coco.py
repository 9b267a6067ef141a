"""COCO's evaluation with the C++ code of faster-coco-eval, for any ids."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

# What the evaluation reads from an annotation besides its ids.
_KEYS = ('bbox', 'area', 'iscrowd', 'score')
# Exactly one of them lies in (1/n, 2/n] for every n from 2 to a million.
_OCTAVES = 2.0 ** -np.arange(20)


def require_faster_coco_eval() -> Any:
    """Return the package ``faster_coco_eval``.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import faster_coco_eval
    except ImportError as error:
        raise ImportError(
            'this evaluation needs the package faster-coco-eval; install it with `pip install faster-coco-eval`'
        ) from error
    return faster_coco_eval


class FasterCocoEval(COCOeval):
    """pycocotools' ``COCOeval`` whose matching and accumulation are those of faster-coco-eval.

    The summary stays pycocotools' own: its AP takes at most 100 predictions of an image and a class, that of
    faster-coco-eval up to the last of ``params.maxDets``, which is 1000 in MMDetection.

    faster-coco-eval compares ids as whole numbers. Images, categories and annotations are therefore numbered in the
    order in which pycocotools sorts their ids; this order also decides between equal scores.
    """

    def evaluate(self) -> None:
        """Match the predictions with the true objects.

        Raises:
            ImportError: faster-coco-eval is not installed.
        """
        params = self.params
        params.imgIds = list(np.unique(params.imgIds))
        if params.useCats:
            params.catIds = list(np.unique(params.catIds))
        params.maxDets = sorted(params.maxDets)
        self._prepare()
        images = {one: number for number, one in enumerate(params.imgIds, start=1)}
        categories = {one: number for number, one in enumerate(params.catIds, start=1)}
        truth, predictions = self._number(images, categories)
        self._faster = require_faster_coco_eval().COCOeval_faster(truth, predictions, params.iouType)
        for name in ('iouThrs', 'maxDets', 'areaRng', 'areaRngLbl', 'useCats'):
            setattr(self._faster.params, name, getattr(params, name))
        self._faster.params.recThrs = np.unique([*params.recThrs, *_OCTAVES])
        self._faster.params.imgIds = list(images.values())
        self._faster.params.catIds = list(categories.values())
        self._faster.evaluate()

    def _number(self, images: Mapping[Any, int], categories: Mapping[Any, int]) -> tuple[Any, Any]:
        """Return objects and predictions with numbers for ids."""
        masks = self.params.iouType == 'segm'
        return (
            _numbered(self._gts, images, categories, masks),
            _numbered(self._dts, images, categories, masks),
        )

    def accumulate(self, p: Any = None) -> None:
        """Set ``eval`` to the arrays of precision, recall and scores, as pycocotools does.

        pycocotools divides by the number of predictions + 2.2e-16. That changes the precision of a single prediction,
        the first one, from 1 to 1 - 2.2e-16, and remains visible if the second one is wrong.
        """
        self._faster.accumulate()
        found = self._faster.eval
        recalls = self._faster.params.recThrs
        is_octave = np.isin(recalls, _OCTAVES)
        own = np.searchsorted(recalls, self.params.recThrs)
        precision = found['precision'][:, own]
        objects = self._count_objects()
        for category, area in zip(*np.nonzero(objects), strict=True):
            number = objects[category, area]
            of_two = (recalls > 1 / number) & (recalls <= 2 / number) & is_octave
            after_two = found['precision'][:, of_two, category, area]
            one_only = (after_two < 1).all(axis=1, keepdims=True)
            part = precision[:, :, category, area]
            part[(part == 1) & one_only] = 1 / (1 + np.spacing(1))
        self.eval = dict(found, precision=precision, scores=found['scores'][:, own])

    def _count_objects(self) -> np.ndarray:
        """Return the number of objects that count, (categories, area ranges)."""
        ids = list(self.params.catIds) if self.params.useCats else [None]
        lowest, highest = np.array(self.params.areaRng).T
        counts = np.zeros((len(ids), len(lowest)), dtype=int)
        for (_, category), annotations in self._gts.items():
            row = ids.index(category) if self.params.useCats else 0
            for ann in annotations:
                if not ann['ignore'] and category in self.params.catIds:
                    counts[row] += (lowest <= ann['area']) & (ann['area'] <= highest)
        return counts


def _numbered(
    annotations: Mapping[tuple[Any, Any], list[dict]],
    images: Mapping[Any, int],
    categories: Mapping[Any, int],
    masks: bool,
) -> Any:
    """Return the annotations by image and category as an API of faster-coco-eval with numbers for ids."""
    keys = (*_KEYS, 'segmentation') if masks else _KEYS
    numbered: list[dict] = []
    for (image, category), some in annotations.items():
        if category in categories:  # without categories, pycocotools prepares all of them
            ids = dict(image_id=images[image], category_id=categories[category])
            numbered += [
                dict(ids, id=number, **{key: ann[key] for key in keys if key in ann})
                for number, ann in enumerate(some, start=len(numbered) + 1)
            ]
    sizes = {}
    if masks:
        sizes = {ann['image_id']: ann['segmentation']['size'] for ann in numbered}
    return require_faster_coco_eval().COCO(
        dict(
            images=[
                dict(id=one, height=height, width=width)
                for one in images.values()
                for height, width in [sizes.get(one, (0, 0))]
            ],
            categories=[dict(id=one) for one in categories.values()],
            annotations=numbered,
        )
    )
