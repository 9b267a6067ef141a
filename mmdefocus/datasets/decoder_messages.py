"""What an image decoder says besides the pixels that it returns."""

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
    # A process that is forked from another thread must find the lock open and stderr in its place.
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
_COMPLAINT = re.compile(r'Corrupt JPEG data: .*|Premature end of JPEG file.*')
_EXTRANEOUS = re.compile(r'(\d+) extraneous bytes')
# Some cameras write a few bytes more than the pixels need, which does no harm.
_HARMLESS_BYTES = 16


def decode_jpeg(decode: Callable[[], Result]) -> tuple[Result, str | None]:
    """Decode a JPEG and tell what libjpeg found wrong with it.

    libjpeg goes on after damaged data with grey or with what the following bits happen to mean, and OpenCV returns
    these pixels. All that is left of the damage is a line that libjpeg writes to stderr, so that is read here. It takes
    a temporary file, much less time than a second decoding. What was written is passed on to stderr afterwards.

    Args:
        decode: Decodes the image.

    Returns:
        What ``decode`` returns, and libjpeg's complaint or None.
    """
    result, written = _with_stderr(decode)
    complaint = _COMPLAINT.search(written)
    return result, complaint and complaint.group()


def is_harmless(complaint: str) -> bool:
    """Whether the pixels are most likely right all the same."""
    extraneous = _EXTRANEOUS.search(complaint)
    return extraneous is not None and int(extraneous.group(1)) <= _HARMLESS_BYTES


def _with_stderr(function: Callable[[], Result]) -> tuple[Result, str]:
    """Call a function and catch what it writes to stderr, from C too."""
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
