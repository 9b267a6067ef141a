"""Checkpoints: safe reading, and conversion between official files and MMEngine checkpoints.

Importing this package replaces MMEngine's loaders of files and addresses, see :mod:`.loaders`.
"""

from .container import CheckpointError
from .families import CheckpointFamily, register_family
from .loaders import load_from_http, load_from_local
from .names import mmdefocus_to_official, official_to_mmdefocus
from .official import is_official_checkpoint
from .reading import read_checkpoint

__all__ = [
    'CheckpointError',
    'CheckpointFamily',
    'is_official_checkpoint',
    'load_from_http',
    'load_from_local',
    'mmdefocus_to_official',
    'official_to_mmdefocus',
    'read_checkpoint',
    'register_family',
]
