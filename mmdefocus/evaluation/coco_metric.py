"""COCO's average precision for any annotation ids and category ids."""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine import fileio
from mmengine.registry import METRICS

from .faster_coco import FasterCocoEval, require_faster_coco_eval

# MMDetection's method, in which the global name COCOeval is another class: no module changes for other metrics.
_FASTER_COMPUTE_METRICS = FunctionType(
    CocoMetric.compute_metrics.__code__,
    {**CocoMetric.compute_metrics.__globals__, 'COCOeval': FasterCocoEval},
    CocoMetric.compute_metrics.__name__,
)


@METRICS.register_module()
class DefocusCocoMetric(CocoMetric):
    """MMDetection's ``CocoMetric`` for any annotation ids and category ids, and for a part of the images.

    Labels are the positions of the names in the data set's ``metainfo['classes']``; the metric finds their ids in
    ``ann_file`` by name. MMDetection counts labels in the order of the file, and its table per class has the rows of
    other classes if the file does not list the categories by ascending id. Result files (``outfile_prefix``) have the
    ids of ``ann_file``; without an ``ann_file`` or without categories in it, those of ``metainfo['category_ids']``.

    pycocotools marks a matched prediction with the id of the true box, and an unmatched one with 0: a file whose
    annotation ids start at 0 loses a true positive. This metric numbers the boxes from 1.

    Only images with predictions count, so that a data set with ``indices`` can be evaluated. The boxes of the other
    images would all count as missed.

    Args:
        *args: As for MMDetection's ``CocoMetric``.
        backend: ``pycocotools``, or ``faster`` for the C++ code of faster-coco-eval, which gives equal numbers in a
            fraction of the time. It evaluates ``bbox``, ``segm`` and ``proposal``; ``proposal_fast`` is MMDetection's
            own code with either.
        **kwargs: As for MMDetection's ``CocoMetric``.

    Raises:
        ValueError: The backend is unknown, or ``use_mp_eval`` requests the processes of pycocotools' evaluation.
        ImportError: The backend is ``faster`` and faster-coco-eval is not installed.
    """

    def __init__(self, *args: Any, backend: str = 'pycocotools', **kwargs: Any) -> None:
        if backend not in ('pycocotools', 'faster'):
            raise ValueError(f"the backend of {type(self).__name__} must be 'pycocotools' or 'faster', got {backend!r}")
        super().__init__(*args, **kwargs)
        self.backend = backend
        if backend == 'faster':
            require_faster_coco_eval()
            if self.use_mp_eval:
                raise ValueError(
                    "use_mp_eval=True runs pycocotools in several processes, and backend='faster' replaces "
                    'pycocotools; use one of the two'
                )
        if self._coco_api is not None:
            annotations = self._coco_api.dataset.get('annotations', [])
            for number, ann in enumerate(annotations, start=1):
                ann['id'] = number
            # The only index by annotation id; the others refer to the same annotations.
            self._coco_api.anns = {ann['id']: ann for ann in annotations}

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """Evaluate the predictions.

        Args:
            results: Pairs of image and prediction, as stored by :meth:`process`.

        Returns:
            Metrics by name.

        Raises:
            ValueError: Masks are evaluated and the predictions have none, or ``ann_file`` lacks a class.
        """
        if 'segm' in self.metrics and not all('masks' in prediction for _, prediction in results):
            raise ValueError(
                "the metric 'segm' evaluates masks, and the model predicts none; use a model with masks, such as Mask "
                "R-CNN, or set metric='bbox' in val_evaluator and test_evaluator"
            )
        self.img_ids = [image['img_id'] for image, _ in results]
        self.label_ids = self._find_ids()
        # COCO's evaluation sorts them, and the base class reads its tables in the order of this list.
        self.cat_ids = sorted(self.label_ids)
        if self.backend == 'faster':
            return _FASTER_COMPUTE_METRICS(self, results)
        return super().compute_metrics(results)

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict[str, str]:
        """Write predictions with the original ids to ``outfile_prefix`` + ``.bbox.json``; see the base class."""
        # The base class takes the label as a position in cat_ids.
        positions = np.array([self.cat_ids.index(one) for one in self.label_ids])
        return super().results2json(
            [dict(result, labels=positions[result['labels']]) for result in results], outfile_prefix
        )

    def gt_to_coco_json(self, gt_dicts: Sequence[dict], outfile_prefix: str) -> str:
        """Write the true boxes of the data set with the original ids; see the base class."""
        path = super().gt_to_coco_json(gt_dicts, outfile_prefix)
        content = fileio.load(path)
        for category in content['categories']:
            category['id'] = self.label_ids[category['id']]
        for ann in content.get('annotations', []):
            ann['category_id'] = self.label_ids[ann['category_id']]
        fileio.dump(content, path)
        return path

    def _find_ids(self) -> list[Any]:
        """Return the id of every label."""
        classes = self.dataset_meta['classes']
        given = self.dataset_meta.get('category_ids')
        if self._coco_api is None:
            return list(range(len(classes)) if given is None else given)
        truth = self._coco_api.dataset
        if not truth.get('categories') and given is not None:
            truth['categories'] = [dict(id=one, name=name) for one, name in zip(given, classes, strict=True)]
            self._coco_api.createIndex()
        ids = {category['name']: category['id'] for category in truth.get('categories', [])}
        missing = [name for name in classes if name not in ids]
        if missing:
            raise ValueError(
                f'the ann_file of {type(self).__name__} has no category {", ".join(missing)}; set it to the annotation '
                'file of the data set, or give the data set metainfo=dict(classes=..., category_ids=[...]) if the file '
                'lists no categories'
            )
        return [ids[name] for name in classes]
