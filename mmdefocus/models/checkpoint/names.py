"""Renaming of state dicts between official names and ours, for every registered family."""

from collections.abc import Mapping
from typing import TypeVar

from .families import BACKBONE, KINDS, CheckpointFamily, Kind, find_family, find_official_family, registered_families
from .families.name_map import NameMap, apply, unmapped
from .families.registry import ambiguous, family_by_name, unknown

Value = TypeVar('Value')


def official_to_mmdefocus(
    state_dict: Mapping[str, Value], strict: bool = True, family: str | None = None
) -> dict[str, Value]:
    """Convert a state dict with official names to our names.

    Args:
        state_dict: State dict of a classifier, of a detector or of the backbone alone. In an official file it is the
            entry ``model`` or ``state_dict`` (``model_ema`` or ``state_dict_ema`` for the average).
        strict: Raise if there are other names. Else they are left out.
        family: Name of a checkpoint family. By default the one that recognises the names or, for a part of a model,
            the one that knows most of them.

    Returns:
        New state dict in the same order: ``backbone.*`` and ``head.*`` from classification, ``backbone.*``,
        ``neck.*`` and the detector's own names from detection.

    Raises:
        TypeError: ``state_dict`` is not a mapping.
        ValueError: A whole checkpoint instead of its state dict, names that are ours already, names of another model,
            or an unknown ``family``.
    """
    _check_state_dict(state_dict)
    adapter = family_by_name(family) if family else find_official_family(state_dict)
    if adapter is None:
        mapped, mapped_back = _count_mapped(state_dict, _our_kind(state_dict))
        if max(mapped_back.values()) > max(mapped.values()):
            raise ValueError('expected official names, got names of mmdefocus already')
        adapter = _closest_family(state_dict, mapped)
    naming = f'official {adapter.official_kind(state_dict)}'
    return _convert(state_dict, adapter.from_official(state_dict), naming, strict)


def mmdefocus_to_official(
    state_dict: Mapping[str, Value], kind: Kind | None = None, family: str | None = None
) -> dict[str, Value]:
    """Convert a state dict with our names to official names; inverse of :func:`official_to_mmdefocus`.

    Args:
        state_dict: State dict of a classifier or a detector.
        kind: ``'classification'`` or ``'detection'`` names to write. By default detection if there are names of
            a neck or a detector, else classification.
        family: As in :func:`official_to_mmdefocus`.

    Returns:
        New state dict in the same order.

    Raises:
        TypeError: ``state_dict`` is not a mapping.
        ValueError: A whole checkpoint instead of its state dict, official names, names of another model, unknown
            ``kind`` or ``family``.
    """
    name_map, kind = name_map_to_official(state_dict, kind, family)
    return _convert(state_dict, name_map, f'mmdefocus {kind}', strict=True)


def name_map_to_official(
    state_dict: Mapping[str, Value], kind: Kind | None = None, family: str | None = None
) -> tuple[NameMap, Kind]:
    """Return the name map that :func:`mmdefocus_to_official` applies, and the kind of its names."""
    _check_state_dict(state_dict)
    if kind is not None and kind not in KINDS:
        raise ValueError(f'kind must be one of {list(KINDS)} or None, got {kind!r}')
    chosen = kind or _our_kind(state_dict)
    adapter = family_by_name(family) if family else find_family(state_dict)
    if adapter is None:
        mapped_back, mapped = _count_mapped(state_dict, chosen)
        if max(mapped_back.values()) > max(mapped.values()):
            raise ValueError('expected names of mmdefocus (backbone.*), got official names')
        adapter = _closest_family(state_dict, mapped)
    return adapter.to_official(state_dict, chosen), chosen


def is_official(state_dict: Mapping[str, Value]) -> bool:
    """Return True if a family recognises the names as official, of either kind of file."""
    return find_official_family(state_dict) is not None


def rename_official(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """Convert official names to ours and keep unknown names, which the caller accepts or reports."""
    family = find_official_family(state_dict)
    if family is None:
        return dict(state_dict)
    name_map = family.from_official(state_dict)
    return apply(name_map, state_dict) | {key: state_dict[key] for key in unmapped(name_map, state_dict)}


def backbone_state_dict(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """Extract the backbone from a state dict.

    Args:
        state_dict: Official or our names, of a whole classifier or detector or of the backbone alone.

    Returns:
        State dict with the backbone's own names, such as ``layers.0.norm.weight`` or ``stages.0.0.norm1.weight``.
        Names that no family knows are kept; those of other parts of a whole model are left out.
    """
    family = find_official_family(state_dict)
    if family is not None:
        name_map = family.from_official(state_dict)
        # Without prefixes, an unknown name may be the backbone's. Official heads have the name that ours have.
        prefix = '' if any(key.startswith(BACKBONE) for key in state_dict) else BACKBONE
        state_dict = apply(name_map, state_dict) | {
            key if key.startswith('head.') else prefix + key: state_dict[key] for key in unmapped(name_map, state_dict)
        }
    part = {key[len(BACKBONE) :]: value for key, value in state_dict.items() if key.startswith(BACKBONE)}
    return part or dict(state_dict)


def _check_state_dict(state_dict: Mapping[str, Value]) -> None:
    if not isinstance(state_dict, Mapping):
        raise TypeError(f'expected a state dict (name to tensor), got {type(state_dict).__name__}')
    for entry in ('model', 'state_dict'):
        if entry in state_dict:
            raise ValueError(f'expected a state dict, got a whole checkpoint; pass its entry {entry!r}')
    for key in state_dict:
        if not isinstance(key, str):
            raise ValueError(f'expected names of tensors, got the key {key!r} of type {type(key).__name__}')


def _our_kind(state_dict: Mapping[str, Value]) -> Kind:
    is_classifier = all(key.startswith((BACKBONE, 'head.')) for key in state_dict)
    return 'classification' if is_classifier else 'detection'


def _count_mapped(
    state_dict: Mapping[str, Value], kind: Kind
) -> tuple[dict[CheckpointFamily, int], dict[CheckpointFamily, int]]:
    """Count the names that each family maps from and to official ones."""
    families = registered_families()
    return (
        {family: len(family.from_official(state_dict)) for family in families},
        {family: len(family.to_official(state_dict, kind)) for family in families},
    )


def _closest_family(state_dict: Mapping[str, Value], mapped: Mapping[CheckpointFamily, int]) -> CheckpointFamily:
    """Choose the family of a part of a model, which lacks the names by which families recognise whole models."""
    most = max(mapped.values())
    closest = [family for family, count in mapped.items() if count == most]
    if most == 0:
        raise unknown(state_dict)
    if len(closest) > 1:
        raise ambiguous(closest, state_dict)
    return closest[0]


def _convert(state_dict: Mapping[str, Value], name_map: NameMap, naming: str, strict: bool) -> dict[str, Value]:
    leftovers = unmapped(name_map, state_dict)
    if leftovers and strict:
        raise ValueError(f'{len(leftovers)} keys do not belong to the {naming} names: {", ".join(leftovers)}')
    return apply(name_map, state_dict)
