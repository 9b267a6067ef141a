"""Suggestions for misspelled names, as the end of an error message."""

import difflib
from collections.abc import Sequence
from pathlib import Path


def did_you_mean(names: Sequence[str]) -> str:
    """Return ``'; did you mean …?'``, or an empty string without names."""
    return f'; did you mean {", ".join(names)}?' if names else ''


def similar_files(path: Path, suffix: str) -> str:
    """Suggest files for a path that does not exist.

    Args:
        path: The missing file.
        suffix: Suffix of the files to consider.

    Returns:
        A question that names files with similar names, a remark that the directory is missing too, or an empty string.
    """
    directory = path.parent
    if not directory.is_dir():
        return f': there is no directory {directory} here ({Path.cwd()})'
    names = [entry.name for entry in directory.glob(f'*{suffix}')]
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.7)
    return did_you_mean([str(directory / name) for name in close])
