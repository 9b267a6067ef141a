"""The data sets of MMDetection and MMPreTrain, imported without their note on OneDL.

Both print that this optional package is missing, to everybody, since MMEngine's ``print_log`` ignores the level DEBUG
where it has no logger. Importing this module before anything else imports them leaves that line out, and no other.
"""

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.logging


@contextmanager
def _without_onedl_note() -> Iterator[None]:
    print_log = mmengine.logging.print_log

    @functools.wraps(print_log)
    def print_other(msg: Any, *args: Any, **kwargs: Any) -> None:
        if not str(msg).startswith('Could not import OneDL'):
            print_log(msg, *args, **kwargs)

    mmengine.logging.print_log = print_other
    try:
        yield
    finally:
        mmengine.logging.print_log = print_log


with _without_onedl_note():
    importlib.import_module('mmdet.datasets')
    importlib.import_module('mmpretrain.datasets')
