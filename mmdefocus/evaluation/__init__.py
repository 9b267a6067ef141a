"""Metrics. Importing this package registers them with MMEngine."""

import mmdefocus.datasets.openmmlab  # noqa: F401 (before the data sets are imported otherwise)

# isort: split
from mmdefocus.evaluation.coco_metric import DefocusCocoMetric

__all__ = ['DefocusCocoMetric']
