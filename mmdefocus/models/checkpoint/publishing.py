"""Atomic writing of checkpoint files."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def write_checkpoint(checkpoint: Any, path: str | Path, with_hash: bool = False) -> Path:
    """Save a checkpoint; the file appears under its name only when it is complete.

    Args:
        checkpoint: Object for ``torch.save``.
        path: File to write; a missing directory is created.
        with_hash: Insert the first 8 digits of the file's SHA-256, ``name-01234567.pth``, as OpenMMLab publishes.

    Returns:
        The path of the written file.

    Raises:
        ValueError: The name does not end in ``.pth``.
    """
    path = Path(path)
    if path.suffix != '.pth':
        raise ValueError(f"expected a file name that ends in .pth, got '{path}'; rename it")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        # Through a file object: torch.save would write the path into the file and so into its hash.
        with unfinished.open('xb') as file:
            torch.save(checkpoint, file)
        if with_hash:
            path = path.with_name(f'{path.stem}-{sha256(unfinished)[:8]}.pth')
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
