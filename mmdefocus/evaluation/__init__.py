"""Metrics. Importing this package registers them in MMEngine, if MMDetection is installed."""

from mmdefocus.openmmlab import are_installed, without_onedl_note

__all__ = []

with without_onedl_note():
    if are_installed('mmdet'):
        from .coco_metric import DefocusCocoMetric

        __all__ += ['DefocusCocoMetric']
