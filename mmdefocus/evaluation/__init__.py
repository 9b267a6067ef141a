"""Metrics. Importing this package registers them with MMEngine."""

from mmdefocus.evaluation.coco_metric import DefocusCocoMetric

__all__ = ['DefocusCocoMetric']
