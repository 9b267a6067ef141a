"""Numbers about a trained network, computed from its predictions: what it does well, what it confuses, and why.

This package draws nothing and reads no images.
"""

from .breakdown import Breakdown, Group
from .calibration import Calibration, ReliabilityBin
from .classification_statistics import (
    ClassificationStatistics,
    ClassifiedClass,
    ClassifiedImage,
    analyse_classification,
)
from .detection_statistics import (
    ConfusionMatrix,
    DetectedClass,
    DetectionStatistics,
    PrecisionRecallCurve,
    analyse_detections,
)
from .error_types import ErrorType
from .score_thresholds import BestThreshold
from .worst_cases import DrawnBox, FalseNegative, FalsePositive

__all__ = [
    'BestThreshold',
    'Breakdown',
    'Calibration',
    'ClassificationStatistics',
    'ClassifiedClass',
    'ClassifiedImage',
    'ConfusionMatrix',
    'DetectedClass',
    'DetectionStatistics',
    'DrawnBox',
    'ErrorType',
    'FalseNegative',
    'FalsePositive',
    'Group',
    'PrecisionRecallCurve',
    'ReliabilityBin',
    'analyse_classification',
    'analyse_detections',
]
