"""Directories that the command line names."""

import os
from pathlib import Path

from mmdefocus.apis.errors import UsageError


def make_folder(option: str, path: str) -> None:
    """Make a directory for results.

    Args:
        option: Option that names it, for the message.
        path: The directory; it may exist.

    Raises:
        UsageError: It cannot be made or written to.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(_message(option, path, error.strerror)) from error
    if not os.access(path, os.W_OK):
        raise UsageError(_message(option, path, 'Permission denied'))


def _message(option: str, path: str, reason: str | None) -> str:
    return f"{option} needs a directory that can be written to, got '{path}' ({reason}); name another one"
