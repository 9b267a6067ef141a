"""Sizes of a backbone by name or as a dict."""

from collections.abc import Mapping

Zoo = Mapping[str, Mapping[str, int]]


def arch_sizes(arch: str | Mapping[str, int], zoo: Zoo) -> dict[str, int]:
    """The sizes of a network.

    Args:
        arch: A name in ``zoo``, or a dict with exactly the keys of its entries.
        zoo: Sizes by name, all with the same keys.

    Returns:
        A new dict in the order of the keys in ``zoo``.

    Raises:
        TypeError: ``arch`` is neither a name nor a dict.
        ValueError: An unknown name, missing or unknown keys, or a size that is no positive integer.
    """
    if isinstance(arch, str):
        if arch not in zoo:
            raise ValueError(f'arch must be one of {list(zoo)} or a dict, got {arch!r}')
        return dict(zoo[arch])
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch must be a name or a dict, got {type(arch).__name__}')
    keys = list(next(iter(zoo.values())))
    missing, unknown = sorted(set(keys) - set(arch)), sorted(set(arch) - set(keys))
    if missing or unknown:
        raise ValueError(f'arch must have exactly the keys {keys}; missing {missing}, unknown {unknown}')
    for key in keys:
        if not isinstance(arch[key], int) or arch[key] < 1:
            raise ValueError(f'arch[{key!r}] must be a positive integer, got {arch[key]!r}')
    return {key: arch[key] for key in keys}
