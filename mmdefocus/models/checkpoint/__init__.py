"""Checkpoints: reading them safely, official and our names, the image size that they were trained at.

Importing this package makes MMEngine load checkpoints through it, see :mod:`.loaders`.
"""

from .container import CheckpointError
from .key_mapping import mmdefocus_to_official, official_to_mmdefocus
from .loaders import load_from_http, load_from_local
from .official import is_official_checkpoint
from .reading import read_checkpoint

__all__ = [
    'CheckpointError',
    'is_official_checkpoint',
    'load_from_http',
    'load_from_local',
    'mmdefocus_to_official',
    'official_to_mmdefocus',
    'read_checkpoint',
]
