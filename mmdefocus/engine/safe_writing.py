"""Files that are complete or absent under their names, whatever ends the process or the machine."""

import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mmengine.fileio import LocalBackend, register_backend

UNFINISHED = '.unfinished'
BACKEND = 'defocus_local'
_FREE = 'Free space, keep fewer files (max_keep_ckpts)'
# Cause and remedy.
_REASONS = {
    errno.ENOSPC: ('the disk is full', _FREE),
    errno.EDQUOT: ('the disk quota is used up', _FREE),
    errno.EFBIG: ('the file is larger than the limit', 'Raise the limit (ulimit -f)'),
    errno.EROFS: ('the file system is read-only', 'Make it writable'),
    errno.EACCES: ('there is no permission', 'Change the permissions'),
    errno.EPERM: ('there is no permission', 'Change the permissions'),
}


class SavingError(RuntimeError):
    """A file could not be written. The message names the file, the cause and what to do."""


def hash_path(path: str | Path) -> Path:
    """Return the path of the file that holds the SHA-256 of ``path``: ``epoch_3.pth.sha256``."""
    path = Path(path)
    return path.with_name(f'{path.name}.sha256')


@contextmanager
def open_safely(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing whose name refers to the former content or to the new one at any time.

    The content goes to a temporary file of the same directory, to the disk, and, when the block ends without an error,
    to its name. This needs a file system whose rename is atomic and whose fsync is honest; network file systems such as
    NFS are.

    Args:
        path: File to write or to replace. A missing directory is created.

    Raises:
        OSError: The file could not be written. One that was there before is unchanged, and nothing else remains.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if hash_path(path).exists():  # It would contradict the new content.
            hash_path(path).unlink()
            _sync_directory(path.parent)
        os.replace(unfinished, path)
        _sync_directory(path.parent)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_safely(path: str | Path, content: bytes, with_hash: bool = False) -> None:
    """Write a file as :func:`open_safely` does, so that a power cut leaves the former content or the new one.

    Args:
        path: File to write or to replace. A missing directory is created.
        content: Content.
        with_hash: Write the SHA-256 of the content to :func:`hash_path`, in the format of ``sha256sum``, afterwards.

    Raises:
        SavingError: The file could not be written. One that was there before is unchanged, and nothing else remains.
    """
    path = Path(path)
    # Hashing a large file takes as long as writing it; both leave the interpreter to the other.
    with ThreadPoolExecutor(max_workers=1) as pool:
        digest = pool.submit(hashlib.sha256, content) if with_hash else None
        try:
            with open_safely(path) as file:
                file.write(content)
        except OSError as error:
            raise SavingError(_explain(path, len(content), error)) from error
    if digest is not None:
        write_safely(hash_path(path), f'{digest.result().hexdigest()}  {path.name}\n'.encode())


def check_writable(directory: str | Path) -> None:
    """Check that files can be written to a directory, which is created.

    Raises:
        SavingError: They cannot.
    """
    probe = Path(directory) / f'probe{UNFINISHED}'
    write_safely(probe, b'')
    probe.unlink()


def remove_unfinished(directory: str | Path) -> list[str]:
    """Remove the temporary files that a killed process left in a directory, and return their names."""
    names = ('*.pth', '*.pth.sha256', 'last_checkpoint', 'probe')
    found = [path for name in names for path in Path(directory).glob(name + UNFINISHED)]
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]


@register_backend(BACKEND)
class DefocusLocalBackend(LocalBackend):
    """MMEngine's local files, with :func:`write_safely` for ``put`` and a hash beside every file."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file and its hash.

        Raises:
            SavingError: As in :func:`write_safely`.
        """
        write_safely(filepath, obj, with_hash=True)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file and its hash."""
        hash_path(filepath).unlink(missing_ok=True)
        super().remove(filepath)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Some network file systems have nothing to synchronise in a directory.
            raise
    finally:
        os.close(descriptor)


def _explain(path: Path, size: int, error: OSError) -> str:
    cause, remedy = _REASONS.get(error.errno or 0, ('the system reports an error', 'Check the disk'))
    return (
        f'{path} ({size:,} bytes) cannot be written: {cause} ({error.strerror or error}). The checkpoints that were '
        f'saved before are unchanged. {remedy} or save elsewhere (default_hooks.checkpoint.out_dir), then continue '
        'with --resume'
    )
