"""Sizes and forms of a backbone, given by name or as a dict."""

from collections.abc import Mapping, Sequence
from typing import Any

ArchZoo = Mapping[str, Mapping[str, Any]]


def arch_table(keys: tuple[str, ...], **archs: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """Write a table of archs with one row per name.

    Args:
        keys: Names of the columns.
        archs: Rows by name, each with one value per column; ``_`` in a name stands for ``-``.

    Returns:
        Values by name and key, as :func:`arch_sizes` expects them.
    """
    return {name.replace('_', '-'): dict(zip(keys, row, strict=True)) for name, row in archs.items()}


def arch_sizes(arch: str | Mapping[str, Any], zoo: ArchZoo) -> dict[str, Any]:
    """Look up or check the arch of a network.

    Args:
        arch: A name in ``zoo``, or a dict with exactly the keys of its entries and values of the same kinds: positive
            integers, other numbers, text, truth values, or lists of as many such values.
        zoo: Archs by name, all with the same keys.

    Returns:
        A new dict with the keys in the order of ``zoo``; lists become tuples.

    Raises:
        TypeError: If ``arch`` is neither a name nor a dict.
        ValueError: If the name is unknown, keys are missing or unknown, or a value is of another kind.
    """
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(f'arch must be one of {list(zoo)} or a dict, got {arch!r}')
        return dict(zoo[arch])
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch must be a name or a dict, got {type(arch).__name__}')
    example = next(iter(zoo.values()))
    keys = list(example)
    missing, unknown = sorted(set(keys) - set(arch)), sorted(set(arch) - set(keys))
    if missing or unknown:
        raise ValueError(f'arch must have exactly the keys {keys}; missing {missing}, unknown {unknown}')
    for key in keys:
        if not _is_like(arch[key], example[key]):
            raise ValueError(f'arch[{key!r}] must be {_kind(example[key])}, got {arch[key]!r}')
    return {key: tuple(arch[key]) if isinstance(example[key], tuple) else arch[key] for key in keys}


def _is_like(value: Any, example: Any) -> bool:
    if isinstance(example, tuple):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and len(value) == len(example) and all(_is_like(item, example[0]) for item in value)
    if isinstance(value, bool) or isinstance(example, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, int):
        return isinstance(value, int) and value > 0
    return isinstance(value, (int, float) if isinstance(example, float) else str)


def _kind(example: Any) -> str:
    if isinstance(example, tuple):
        return f'a list of {len(example)} values, each {_kind(example[0])}'
    kinds = {bool: 'True or False', int: 'a positive integer', float: 'a number', str: 'text'}
    return kinds[type(example)]
