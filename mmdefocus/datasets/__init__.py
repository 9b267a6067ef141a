"""Data sets. Importing this package registers all whose requirements are installed, and the metric for COCO data."""

import mmdefocus.evaluation  # noqa: F401 (configs name its metric together with the data sets)
from mmdefocus.openmmlab import are_installed, without_onedl_note

from .concat import DefocusConcatDataset
from .errors import DataError, MissingFileError
from .loading import DefocusLoadImage

__all__ = ['DataError', 'DefocusConcatDataset', 'DefocusLoadImage', 'MissingFileError']

with without_onedl_note():
    if are_installed('mmdet'):
        from .coco import DefocusCocoDataset

        __all__ += ['DefocusCocoDataset']
    if are_installed('mmpretrain'):
        from .image_folder import DefocusImageFolder

        __all__ += ['DefocusImageFolder']
    if are_installed('mmpretrain', 'sklearn'):
        from .digits_classification import DefocusDigits

        __all__ += ['DefocusDigits']
