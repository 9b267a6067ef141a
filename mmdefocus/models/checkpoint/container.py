"""Checks of a checkpoint file that need no unpickling: its format, completeness and checksums."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

ZIP_MAGIC = b'PK\x03\x04'
# Pickled magic number of torch.save's format before zip, in which MMDetection still publishes.
_LEGACY_MAGIC = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'


class CheckpointError(ValueError):
    """Raised for a file that cannot be used as a checkpoint. The message names the file and the reason."""


def check_container(path: Path, checksums: bool = True) -> None:
    """Check that a file is a complete checkpoint in one of the two formats of ``torch.save``.

    Args:
        path: File.
        checksums: Read the whole file to compare its checksums.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: A directory, an empty, truncated or damaged file, a Git LFS pointer, another kind of file,
            or an archive whose content is larger than the file.
    """
    if path.is_dir():
        raise CheckpointError(f'{path} is a directory; name the checkpoint file in it')
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {path} does not exist; expected the path or the URL of a checkpoint: correct it'
        )
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith(ZIP_MAGIC):
        _check_zip(path, checksums)
    elif head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer, expected the checkpoint itself; run "git lfs pull"')
    elif not head:
        raise CheckpointError(f'{path} is empty, expected a file written by torch.save; download it or copy it again')
    elif not head[2:].startswith(_LEGACY_MAGIC):
        raise CheckpointError(
            f'expected a file written by torch.save, but {path} begins with {head[:16]!r}; {_remedy(head)}'
        )


def _remedy(head: bytes) -> str:
    if head[8:9] == b'{':
        return 'it is in safetensors format: load it with safetensors.torch.load_file and save it with torch.save'
    if head.startswith((b'\x1f\x8b', b'BZh')):
        return 'it is compressed: unpack it'
    if head.startswith(b'\x89HDF'):
        return 'it is in HDF5 format: convert the weights of other frameworks first'
    return 'name a checkpoint of PyTorch, or download it again if this should be one'


def _check_zip(path: Path, checksums: bool) -> None:
    with _damage_named(path), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names) or not any(name.endswith('/data.pkl') for name in names):
        raise CheckpointError(
            f'expected an archive written by torch.save, but {path} is another zip archive; '
            'name the checkpoint file (weights of other frameworks must be converted first)'
        )
    # torch.save does not compress, so it never writes an archive that unpacks to more than the size of the file.
    content = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    if content > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f'{path} has {size:,} bytes but would unpack to {content:,}; torch.save does not compress, so this file '
            'is not a checkpoint'
        )
    status = path.stat()
    damaged = None
    if checksums:
        with _damage_named(path):
            damaged = _damaged_entry(path, status.st_size, status.st_mtime_ns)
    if damaged is not None:
        raise CheckpointError(
            f'{path} is damaged: the content of {damaged} does not match its checksum; download or copy it again'
        )


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile trusts the directory of an archive and can fail in any way.
        raise CheckpointError(
            f'{path} is truncated or damaged ({error}), expected the whole file; download or copy it again'
        ) from error


@lru_cache
def _damaged_entry(path: Path, size: int, changed: int) -> str | None:
    """Return the first entry with a wrong checksum; cached as long as size and modification time stay the same."""
    with zipfile.ZipFile(path) as archive:
        if not any(entry.CRC for entry in archive.infolist()):  # torch.serialization.set_crc32_options(False)
            return None
        return archive.testzip()
