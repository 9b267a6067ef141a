"""The registered families, and the search for the family of a state dict."""

from collections.abc import Collection, Iterable

from .family import CheckpointFamily

_FAMILIES: dict[str, CheckpointFamily] = {}
_SHOWN = 3


def register_family(family: CheckpointFamily) -> None:
    """Make the checkpoints of a family loadable and convertible.

    Args:
        family: Instance of a subclass.

    Raises:
        TypeError: ``family`` is not an instance of :class:`CheckpointFamily`.
        ValueError: A family of the same name is registered already.
    """
    if not isinstance(family, CheckpointFamily):
        raise TypeError(f'expected an instance of CheckpointFamily, got {family!r}')
    if family.name in _FAMILIES:
        raise ValueError(
            f'a checkpoint family {family.name!r} is registered already ({type(_FAMILIES[family.name]).__name__}); '
            f'give {type(family).__name__} another name'
        )
    _FAMILIES[family.name] = family


def registered_families() -> list[CheckpointFamily]:
    """Return all families in the order of their registration."""
    return list(_FAMILIES.values())


def family_by_name(name: str) -> CheckpointFamily:
    """Return the family that was registered under a name.

    Raises:
        ValueError: There is no such family.
    """
    if name not in _FAMILIES:
        raise ValueError(f'family must be one of {list(_FAMILIES)}, got {name!r}')
    return _FAMILIES[name]


def find_official_family(names: Iterable[str]) -> CheckpointFamily | None:
    """Return the family that recognises official names, or None.

    Raises:
        ValueError: Several families recognise them.
    """
    keys = list(names)
    are_names = all(isinstance(key, str) for key in keys)
    return _only([family for family in _FAMILIES.values() if are_names and family.recognises_official(keys)], keys)


def find_family(names: Iterable[str]) -> CheckpointFamily | None:
    """Return the family that recognises our names, or None.

    Raises:
        ValueError: Several families recognise them.
    """
    keys = list(names)
    are_names = all(isinstance(key, str) for key in keys)
    return _only([family for family in _FAMILIES.values() if are_names and family.recognises_ours(keys)], keys)


def _only(found: list[CheckpointFamily], names: list[str]) -> CheckpointFamily | None:
    if len(found) > 1:
        raise ambiguous(found, names)
    return found[0] if found else None


def family_of(names: Iterable[str]) -> CheckpointFamily:
    """Return the family that recognises our names; raise a ValueError if it is not exactly one."""
    keys = list(names)
    family = find_family(keys)
    if family is None:
        raise unknown(keys)
    return family


def ambiguous(families: Collection[CheckpointFamily], names: Iterable[str]) -> ValueError:
    """Return the error for names that several families recognise."""
    titles = ' and '.join(family.title for family in families)
    choices = ' or '.join(f'family={family.name!r}' for family in families)
    return ValueError(
        f'{titles} recognise the same state dict with {show_names(names)}; convert it with official_to_mmdefocus or '
        f'mmdefocus_to_official and {choices}'
    )


def unknown(names: Iterable[str]) -> ValueError:
    """Return the error for names that no family recognises."""
    return ValueError(f'expected a state dict of {known_titles()}, got one with {show_names(names)}')


def known_titles() -> str:
    """Return the registered networks as text."""
    *others, last = (family.title for family in _FAMILIES.values())
    return f'{", ".join(others)} or {last}' if others else last


def show_names(names: Iterable[str]) -> str:
    """Return the first names as text."""
    shown = list(map(str, names))[:_SHOWN]
    return f'the keys {", ".join(shown)}, ...' if shown else 'no keys'
