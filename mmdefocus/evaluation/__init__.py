"""Metrics. Importing this package registers them in MMEngine, those of detectors if MMDetection is
installed."""

from mmdefocus.openmmlab import are_installed, without_onedl_note

from .dump_results import DefocusDumpResults

__all__ = ['DefocusDumpResults']

with without_onedl_note():
    if are_installed('mmdet'):
        from .coco_metric import DefocusCocoMetric
        from .dump_det_results import DefocusDumpDetResults

        __all__ += ['DefocusCocoMetric', 'DefocusDumpDetResults']
