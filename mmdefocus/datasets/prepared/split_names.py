"""Names of splits in folders and files."""

import re
from collections.abc import Iterable
from pathlib import Path

from mmdefocus.datasets.errors import DataError

SPLITS = ('train', 'val', 'test')
_NAMES = {
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'test': 'test',
    'testing': 'test',
}
_PATTERN = re.compile(rf'(?:instances_|annotations_)?({"|".join(sorted(_NAMES, key=len, reverse=True))})[-_]?\d*')


def split_of(name: str) -> str | None:
    """Return the split that a folder or file name without suffix stands for, such as ``val`` for ``valid``."""
    match = _PATTERN.fullmatch(name.lower())
    return _NAMES[match[1]] if match else None


def paths_by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Sort paths by the split in their names; other paths are left out.

    Raises:
        DataError: Two paths stand for the same split.
    """
    found: dict[str, Path] = {}
    for path in sorted(paths):
        split = split_of(path.stem if path.is_file() else path.name)
        if split is None:
            continue
        if split in found:
            raise DataError(
                f'{found[split]} and {path} both stand for the split {split}; expected one of them: rename or move '
                'the other'
            )
        found[split] = path
    return {split: found[split] for split in SPLITS if split in found}
