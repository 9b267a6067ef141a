"""MMDetection and MMPreTrain: which packages are installed, imports without their note on OneDL, and their warnings.

On import, both print that the optional package OneDL is missing. MMEngine's ``print_log`` ignores the level DEBUG
where it has no logger, so the note appears in every program. Import their data sets through :func:`import_quietly`
before any other module imports them.
"""

import functools
import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import mmengine.logging

# Of mmcv, MMEngine and MMDetection about their own code, which a user of the command line cannot change.
_WARNINGS = (
    "You'd better set embed_dims in MultiScaleDeformAttention",
    "Failed to add <class 'mmengine.visualization.vis_backend.LocalVisBackend'>",
    'torch.meshgrid: in an upcoming release',
)


def are_installed(*packages: str) -> bool:
    """Return True if all these top-level packages can be found; none of them is imported."""
    return all(find_spec(package) is not None for package in packages)


def import_quietly(*modules: str) -> None:
    """Import modules without the note on OneDL; skip those whose package is not installed.

    Args:
        modules: Names, such as ``'mmdet.datasets'``.
    """
    with without_onedl_note():
        for module in modules:
            if are_installed(module.partition('.')[0]):
                importlib.import_module(module)


@contextmanager
def without_onedl_note() -> Iterator[None]:
    """Suppress the note on OneDL, and no other message, inside the block."""
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


@contextmanager
def without_their_warnings() -> Iterator[None]:
    """Suppress warnings about the code of these packages inside the block, unless Python's option ``-W`` is given."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            for start in _WARNINGS:
                warnings.filterwarnings('ignore', start, UserWarning)
        yield
