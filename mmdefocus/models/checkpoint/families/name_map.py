"""Maps between two sets of parameter names, and their application to state dicts."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

Value = TypeVar('Value')


class Derived(NamedTuple):
    """A tensor that is computed from others, such as one part of a fused projection.

    Attributes:
        sources: Names of the arguments.
        compute: Function from the tensors of ``sources`` to the new tensor.
    """

    sources: tuple[str, ...]
    compute: Callable[..., Any]


# New name to old name, or to the computation from tensors under old names.
NameMap = dict[str, str | Derived]


class Rule(NamedTuple):
    """A renaming by prefix.

    Attributes:
        official: Official prefix.
        ours: Our prefix.
        rest: Regular expression of the name after either prefix.
    """

    official: str
    ours: str
    rest: str


def rename_from_official(names: Iterable[str], rules: Sequence[Rule]) -> NameMap:
    """Map official names to ours by the first rule that matches; names without one are left out."""
    return _rename(names, [(rule.official, rule.ours, rule.rest) for rule in rules])


def rename_to_official(names: Iterable[str], rules: Sequence[Rule]) -> NameMap:
    """Map our names to official ones by the first rule that matches; names without one are left out."""
    return _rename(names, [(rule.ours, rule.official, rule.rest) for rule in rules])


def _rename(names: Iterable[str], rules: Sequence[tuple[str, str, str]]) -> NameMap:
    patterns = [(re.compile(re.escape(old) + f'({rest})'), new) for old, new, rest in rules]
    name_map: NameMap = {}
    for name in names:
        matches = ((pattern.fullmatch(name), new) for pattern, new in patterns)
        renamed = next((new + match.group(1) for match, new in matches if match), None)
        if renamed is not None:
            name_map[renamed] = name
    return name_map


def apply(name_map: NameMap, state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """Build a state dict with the new names, in the order of the name map."""
    return {
        name: source.compute(*map(state_dict.__getitem__, source.sources))
        if isinstance(source, Derived)
        else state_dict[source]
        for name, source in name_map.items()
    }


def unmapped(name_map: NameMap, names: Iterable[str]) -> list[str]:
    """Return the names that are no source of the name map."""
    used = {name for source in name_map.values() for name in _names(source)}
    return [name for name in names if name not in used]


def sources_by_name(name_map: NameMap) -> dict[str, str]:
    """Return for each new name its old one, or several joined by ``' + '``."""
    return {name: ' + '.join(_names(source)) for name, source in name_map.items()}


def names_by_source(name_map: NameMap) -> dict[str, str]:
    """Return for each old name the new one, or several joined by ``' + '``."""
    names: dict[str, str] = {}
    for name, source in name_map.items():
        for old in _names(source):
            names[old] = f'{names[old]} + {name}' if old in names else name
    return names


def _names(source: str | Derived) -> tuple[str, ...]:
    return source.sources if isinstance(source, Derived) else (source,)
