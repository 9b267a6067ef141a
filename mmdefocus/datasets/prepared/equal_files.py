"""Files with equal bytes, found without decoding."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def group_equal_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Return groups of at least two files with the same bytes. Missing files are left out.

    Only files of equal size are read, one at a time.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    groups: dict[bytes, list[Path]] = defaultdict(list)
    for same_size in by_size.values():
        if len(same_size) > 1:
            for path in same_size:
                groups[hashlib.sha256(path.read_bytes()).digest()].append(path)
    return [group for group in groups.values() if len(group) > 1]
