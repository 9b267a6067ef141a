"""De-focus Attention Networks for MMEngine, MMDetection and MMPreTrain (arXiv 2406.04342)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .apis.classifier import Classifier
    from .apis.detector import Detector

__version__ = '0.1.0'
_MODULES = {'Classifier': 'mmdefocus.apis.classifier', 'Detector': 'mmdefocus.apis.detector'}
__all__ = ['Classifier', 'Detector', '__version__']


def __getattr__(name: str) -> Any:
    """Import :class:`Classifier` and :class:`Detector` when they are used: the operators need torch alone."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
