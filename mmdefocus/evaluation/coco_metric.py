"""COCO's average precision for any annotation ids."""

from typing import Any

from mmdet.evaluation import CocoMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class DefocusCocoMetric(CocoMetric):
    """MMDetection's ``CocoMetric`` for any annotation ids and for a part of the images.

    pycocotools marks a matched prediction with the id of the true box, and an unmatched one with 0: a file whose
    annotation ids start at 0 loses a true positive. This metric numbers the boxes from 1.

    Only images with predictions count, so that a data set with ``indices`` can be evaluated. The boxes of the other
    images would all count as missed.

    Args:
        *args: As for MMDetection's ``CocoMetric``.
        **kwargs: As for MMDetection's ``CocoMetric``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
        """
        self.img_ids = [image['img_id'] for image, _ in results]
        return super().compute_metrics(results)
