"""Checkpoint families: the networks whose official checkpoints load here, one adapter each.

A package that adds a family subclasses :class:`CheckpointFamily` and calls :func:`register_family` when it is imported
(``custom_imports`` of a config); see docs/checkpoints.md for an example.
"""

from .dat import DATFamily
from .defocus_mamba import DefocusMambaFamily
from .family import BACKBONE, KINDS, CheckpointFamily, Kind
from .fcvit import FCViTFamily
from .name_map import Derived, NameMap, Rule, rename_from_official, rename_to_official
from .registry import (
    family_by_name,
    family_of,
    find_family,
    find_official_family,
    register_family,
    registered_families,
)

register_family(DefocusMambaFamily())
register_family(FCViTFamily())
register_family(DATFamily())

__all__ = [
    'BACKBONE',
    'KINDS',
    'CheckpointFamily',
    'Derived',
    'Kind',
    'NameMap',
    'Rule',
    'family_by_name',
    'family_of',
    'find_family',
    'find_official_family',
    'register_family',
    'registered_families',
    'rename_from_official',
    'rename_to_official',
]
