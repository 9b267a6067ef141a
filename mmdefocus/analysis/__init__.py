"""What a network looks at: attention maps, gradients, receptive fields, and scores of them.

Functions take a model of mmdefocus, MMPreTrain or timm, or a :class:`TokenNetwork`, and normalised images.
"""

from .attention_maps import attention_blocks, attention_maps
from .cams import cam
from .detector_queries import DetectionMaps, detection_maps
from .errors import AnalysisError, NoAttention
from .faithfulness import insertion_deletion
from .gradient_maps import gradient_maps
from .networks import TokenNetwork
from .receptive_field import ReceptiveField, receptive_field, theoretical_field
from .rollout import rollout
from .scores import ScoreTable, map_scores, scores
from .spectra import band_pass_spectra

__all__ = [
    'AnalysisError',
    'DetectionMaps',
    'NoAttention',
    'ReceptiveField',
    'ScoreTable',
    'TokenNetwork',
    'attention_blocks',
    'attention_maps',
    'band_pass_spectra',
    'cam',
    'detection_maps',
    'gradient_maps',
    'insertion_deletion',
    'map_scores',
    'receptive_field',
    'rollout',
    'scores',
    'theoretical_field',
]
