"""De-focus Attention Networks for MMEngine, MMDetection and MMPreTrain (arXiv 2406.04342)."""

__version__ = '0.1.0'
