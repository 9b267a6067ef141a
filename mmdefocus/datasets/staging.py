"""Directories that are created completely or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_directory(out: Path) -> Iterator[Path]:
    """Provide an empty directory that replaces ``out`` if the block ends without an error.

    Args:
        out: Directory to create or replace.

    Yields:
        Directory to write to.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f'.{out.name}-', dir=out.parent))
    try:
        fresh = staging / 'new'
        fresh.mkdir()
        yield fresh
        if out.exists():
            out.rename(staging / 'old')
        fresh.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
