"""COCO's table, curves and matches of a detector, computed by faster-coco-eval.

Shapes:
    C classes, P predictions, R = 101 recalls.
"""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..faster_coco import FasterCocoEval, require_faster_coco_eval
from .average_precision import RECALLS
from .detection_arrays import DetectionArrays

TABLE = (
    'AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l', 'AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000',
)  # fmt: skip


class CocoEvaluation:
    """Evaluations of the same objects and predictions.

    Args:
        detections: Objects and predictions.
    """

    def __init__(self, detections: DetectionArrays) -> None:
        self._detections = detections
        self._truth = _as_coco(
            detections,
            detections.object_image,
            detections.object_label,
            detections.object_box,
            area=detections.object_area,
            iscrowd=detections.object_crowd.astype(int),
        )
        self._predictions = _as_coco(
            detections,
            detections.image,
            detections.label,
            detections.box,
            area=detections.area,
            score=detections.score,
        )

    def table(self) -> tuple[dict[str, float | None], np.ndarray, np.ndarray]:
        """Compute COCO's table as ``DefocusCocoMetric`` does.

        Returns:
            The numbers of ``TABLE`` by name; AP and AP50 of every class, (C,) each. None and NaN stand for those
            without an object.
        """
        evaluation = _NumberedCocoEval(self._truth, self._predictions, 'bbox')
        evaluation.params.maxDets = [100, 300, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.summarize()
        values = [None if value < 0 else float(value) for value in evaluation.stats]
        precision = evaluation.eval['precision'][:, :, :, 0, -1]
        return dict(zip(TABLE, values, strict=True)), _mean(precision, (0, 1)), _mean(precision[0], (0,))

    def matches(self, iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Match every prediction with an object of its class, by descending score, as COCO does.

        Returns:
            The matched object of every prediction, -1 without one, (P,) int64; the highest precision at every recall or
            a higher one, NaN for classes without objects, and the score that reaches the recall, NaN where none does,
            (C, R) each.
        """
        found = self._evaluate(iou)
        precision, scores = (found[name][0, :, :, 0, 0].T for name in ('precision', 'scores'))
        unreached = (scores < 0) | (precision <= 0)
        return (
            self._matched(found),
            np.where(precision < 0, np.nan, precision),
            np.where(unreached, np.nan, scores),
        )

    def matches_of_any_class(self, iou: float, threshold: float) -> np.ndarray:
        """Match every prediction from ``threshold`` on with an object of any class, by descending score.

        Returns:
            The matched object, -1 without one, of the first predictions, which have such scores, int64.
        """
        number = int((self._detections.score >= threshold).sum())
        everything = self._predictions
        some = require_faster_coco_eval().COCO(
            dict(everything.dataset, annotations=everything.dataset['annotations'][:number])
        )
        return self._matched(self._evaluate(iou, some, categories=False))[:number]

    def _evaluate(self, iou: float, predictions: Any = None, categories: bool = True) -> dict[str, Any]:
        evaluation = require_faster_coco_eval().COCOeval_faster(
            self._truth, self._predictions if predictions is None else predictions, 'bbox', extra_calc=False
        )
        params = evaluation.params
        params.iouThrs = np.array([iou])
        params.areaRng, params.areaRngLbl = [[0, 1e10]], ['all']
        params.maxDets = [max(len(self._detections.score), 1)]
        params.recThrs = RECALLS
        params.useCats = int(categories)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval

    def _matched(self, found: dict[str, Any]) -> np.ndarray:
        matched = np.full(len(self._detections.score), -1)
        for pair in found['matched']:
            prediction, an_object = pair.split('_')
            matched[int(prediction) - 1] = int(an_object) - 1
        return matched


class _NumberedCocoEval(FasterCocoEval):
    """The evaluation of objects and predictions whose ids are already numbers from 1: it copies none."""

    def _number(self, images: Mapping[Any, int], categories: Mapping[Any, int]) -> tuple[Any, Any]:
        return self.cocoGt, self.cocoDt


def _as_coco(
    detections: DetectionArrays, image: np.ndarray, label: np.ndarray, box: np.ndarray, **columns: np.ndarray
) -> Any:
    """Return boxes as an API of faster-coco-eval, whose ids are positions + 1."""
    rows = zip(*(column.tolist() for column in (image, label, box, *columns.values())), strict=True)
    return require_faster_coco_eval().COCO(
        dict(
            images=[dict(id=number) for number in range(1, len(detections.image_ids) + 1)],
            categories=[dict(id=number, name=name) for number, name in enumerate(detections.classes, start=1)],
            annotations=[
                dict(
                    id=number,
                    image_id=its_image + 1,
                    category_id=its_label + 1,
                    bbox=its_box,
                    **dict(zip(columns, others, strict=True)),
                )
                for number, (its_image, its_label, its_box, *others) in enumerate(rows, start=1)
            ],
        )
    )


def _mean(precision: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return means over the values that are not -1; NaN where there is none."""
    valid = precision > -1
    count = valid.sum(axis=axes)
    return np.where(count > 0, np.where(valid, precision, 0).sum(axis=axes) / np.maximum(count, 1), np.nan)
