"""Sizes of a backbone, given by name or as a dict."""

from collections.abc import Mapping

ArchZoo = Mapping[str, Mapping[str, int]]


def arch_table(keys: tuple[str, ...], **archs: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """Write a table of sizes with one row per name.

    Args:
        keys: Names of the columns.
        archs: Rows by name, each with one size per column.

    Returns:
        Sizes by name and key, as :func:`arch_sizes` expects them.
    """
    return {name: dict(zip(keys, sizes, strict=True)) for name, sizes in archs.items()}


def arch_sizes(arch: str | Mapping[str, int], zoo: ArchZoo) -> dict[str, int]:
    """Look up or check the sizes of a network.

    Args:
        arch: A name in ``zoo``, or a dict with exactly the keys of its entries.
        zoo: Sizes by name, all with the same keys.

    Returns:
        A new dict with the keys in the order of ``zoo``.

    Raises:
        TypeError: If ``arch`` is neither a name nor a dict.
        ValueError: If the name is unknown, keys are missing or unknown, or a size is not a positive integer.
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
