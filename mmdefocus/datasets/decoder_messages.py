"""Warnings of the JPEG decoder, which it writes to stderr."""

import os
import re
import tempfile
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar('Result')

_STDERR = 2
_LOCK = threading.Lock()
if hasattr(os, 'register_at_fork'):
    # A process forked from another thread needs an open lock and the original stderr.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
_COMPLAINT = re.compile(r'Corrupt JPEG data: .*|Premature end of JPEG file.*')
_EXTRANEOUS = re.compile(r'(\d+) extraneous bytes')
# Some cameras write a few bytes more than the pixels need.
_HARMLESS_BYTES = 16


def decode_jpeg(decode: Callable[[], Result]) -> tuple[Result, str | None]:
    """Decode a JPEG and return libjpeg's warning about damaged data.

    After damaged data, libjpeg continues with grey or with arbitrary pixels, and OpenCV returns these. The only trace
    is a line that libjpeg writes to stderr. This function captures stderr in a temporary file, which takes much less
    time than a second decoding, and writes it to stderr afterwards.

    Args:
        decode: Decodes the image.

    Returns:
        Return value of ``decode``, and libjpeg's warning or None.
    """
    result, written = _with_stderr(decode)
    complaint = _COMPLAINT.search(written)
    return result, complaint and complaint.group()


def is_harmless(complaint: str) -> bool:
    """Return True if the warning concerns a few extraneous bytes only, so that the pixels are most likely right."""
    extraneous = _EXTRANEOUS.search(complaint)
    return extraneous is not None and int(extraneous.group(1)) <= _HARMLESS_BYTES


def _with_stderr(function: Callable[[], Result]) -> tuple[Result, str]:
    """Call a function and capture its output to stderr, that of C code included."""
    with _LOCK, tempfile.TemporaryFile() as file:
        try:
            saved = os.dup(_STDERR)
        except OSError:  # the process has no stderr
            return function(), ''
        try:
            os.dup2(file.fileno(), _STDERR)
            result = function()
        finally:
            os.dup2(saved, _STDERR)
            os.close(saved)
        file.seek(0)
        written = file.read()
        if written:
            os.write(_STDERR, written)
    return result, written.decode(errors='replace')
