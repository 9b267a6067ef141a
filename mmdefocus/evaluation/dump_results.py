"""Predictions of a classifier with the names of their classes."""

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS


@METRICS.register_module()
class DefocusDumpResults(DumpResults):
    """MMEngine's ``DumpResults``, which also names the predicted class.

    Every sample of the file has ``pred_class``, the name of ``pred_label`` (a list of names for several labels), if the
    data set names its classes.
    """

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Store the predictions of a batch."""
        first = len(self.results)
        super().process(data_batch, predictions)
        classes = (self.dataset_meta or {}).get('classes')
        if classes is None:
            return
        for sample in self.results[first:]:
            names = [classes[label] for label in sample['pred_label'].tolist()]
            sample['pred_class'] = names[0] if len(names) == 1 else names
