"""Checkpoints that the command line names, and the one from which an interrupted training resumes."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmdefocus.apis.errors import UsageError
from mmdefocus.engine.checkpoint_check_hook import check_weights_are_there
from mmdefocus.engine.resume_check import missing_for_resuming
from mmdefocus.engine.safe_writing import hash_path
from mmdefocus.models.checkpoint import CheckpointError, is_official_checkpoint, read_checkpoint
from mmdefocus.models.checkpoint.publishing import sha256

from .suggestions import similar_files


def find_newest_checkpoint(directory: str | Path) -> Path | None:
    """Find the checkpoint with the most iterations in the directory of a training.

    The iteration is read from the checkpoints themselves, so that the directory may be copied or moved. Unreadable
    files are skipped with a warning. Checkpoints without training state, such as published weights, are ignored. Only
    the files from the newest to the one that is found are read completely, to compare their hashes or checksums.

    Args:
        directory: Directory of the checkpoints; it need not exist.

    Returns:
        Path of the checkpoint, or None if the directory has none of a training.

    Raises:
        UsageError: There are checkpoints, but none of them can be resumed.
    """
    found: dict[Path, tuple[int, int]] = {}
    broken: list[str] = []
    incomplete: list[str] = []
    for path in sorted(Path(directory).glob('*.pth')):
        try:
            content = read_checkpoint(path, map_location='meta', checksums=False)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        missing = missing_for_resuming(content)
        if not missing:
            found[path] = (content['meta']['iter'], content['meta']['epoch'])
        elif 'meta' not in missing:
            incomplete.append(f'{path} has no {" and ".join(missing)}')
    newest = None
    for path in sorted(found, key=lambda path: found[path], reverse=True):
        try:
            _read(path)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        newest = path
        break
    if newest is None and (broken or incomplete):
        raise UsageError(
            f'{directory} has checkpoints, but none of them can be resumed: {"; ".join(broken + incomplete)}. Put a '
            'complete one there, or start a new training in another work directory'
        )
    if newest is not None and broken:
        print_log(f'Skipped in the search for a checkpoint: {"; ".join(broken)}', level=logging.WARNING)
    return newest


def find_best_checkpoint(work_dir: Path) -> Path:
    """Find the newest best checkpoint of a training, or the newest one if none is marked as the best.

    Raises:
        UsageError: The directory has no checkpoint.
    """
    best = sorted(work_dir.glob('best_*.pth'), key=lambda path: (path.stat().st_mtime, path.name))
    found = best[-1] if best else find_newest_checkpoint(work_dir)
    if found is None:
        raise UsageError(
            f"'{work_dir}' has no checkpoint; name the work directory of a training that has ended an epoch, or a "
            'checkpoint file (.pth)'
        )
    return found


def check_checkpoint(checkpoint: str, to_resume: bool = False) -> str:
    """Check that a checkpoint exists, is readable and, with ``to_resume``, has the state of a training.

    Args:
        checkpoint: Path, or a URL, which is not checked.
        to_resume: Require optimiser state and counters.

    Returns:
        ``checkpoint``.

    Raises:
        UsageError: The checkpoint does not meet this.
    """
    if '://' in checkpoint:
        return checkpoint
    path = Path(checkpoint).expanduser()
    if not path.exists():
        similar = similar_files(path, '.pth') or '; expected the path or the URL of a checkpoint: correct it'
        raise UsageError(f"checkpoint '{checkpoint}' does not exist{similar}")
    try:
        content = _read(path)
        check_weights_are_there(content, str(path))
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    remedy = (
        f'to start a new training from its weights, omit --resume and set load_from={checkpoint} with --cfg-options'
    )
    if to_resume and is_official_checkpoint(content):
        raise UsageError(f"'{checkpoint}' is an official file and cannot be resumed; {remedy}")
    missing = ' and '.join(missing_for_resuming(content)) if to_resume else ''
    if missing:
        raise UsageError(f"'{checkpoint}' has no {missing} and cannot be resumed; {remedy}")
    return checkpoint


def _read(path: Path) -> Any:
    """Return the content of an undamaged checkpoint without the values of its tensors."""
    recorded = hash_path(path)
    if not recorded.is_file():
        return read_checkpoint(path, map_location='meta')
    content = read_checkpoint(path, map_location='meta', checksums=False)
    expected = recorded.read_text(errors='replace').partition(' ')[0]
    status = path.stat()
    if _sha256(path, status.st_size, status.st_mtime_ns) != expected:
        raise CheckpointError(
            f'{path} does not match its hash in {recorded.name}: one of them was damaged or replaced. Copy both again, '
            f'or delete {recorded.name} if you changed the checkpoint yourself'
        )
    return content


@lru_cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Return the hash of a file; cached as long as size and modification time stay the same."""
    return sha256(path)
