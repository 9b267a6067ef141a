"""Predictions of a detector with the names and ids of their classes."""

from collections.abc import Sequence
from typing import Any

from mmdet.evaluation import DumpDetResults
from mmengine.registry import METRICS


@METRICS.register_module()
class DefocusDumpDetResults(DumpDetResults):
    """MMDetection's ``DumpDetResults``, which also stores the names and the original ids of the classes.

    ``pred_instances`` of every sample has the lists ``label_names``, if the data set names its classes, and
    ``category_ids``, if it knows the ids of the annotation file.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Store the predictions of a batch."""
        first = len(self.results)
        super().process(data_batch, data_samples)
        meta = self.dataset_meta or {}
        for sample in self.results[first:]:
            found: dict[str, Any] = sample.get('pred_instances', {})
            for key, source in (('label_names', 'classes'), ('category_ids', 'category_ids')):
                if 'labels' in found and meta.get(source) is not None:
                    found[key] = [meta[source][label] for label in found['labels'].tolist()]
