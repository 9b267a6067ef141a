"""Run a command-line tool: print its errors, leave its process group."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.failed_settings import describe_failure
from mmdefocus.apis.runs.launcher import leave_process_group
from mmdefocus.datasets.errors import DataError
from mmdefocus.engine.errors import SetupError
from mmdefocus.engine.safe_writing import SavingError
from mmdefocus.models.checkpoint import CheckpointError
from mmdefocus.openmmlab import without_their_warnings

# Their messages address the user, who needs no traceback.
USER_ERRORS = (UsageError, AnalysisError, CheckpointError, SetupError, DataError, SavingError)


def run_tool(
    parser: argparse.ArgumentParser, action: Callable[[], None], also: tuple[type[Exception], ...] = ()
) -> None:
    """Run a tool and leave its process group.

    An error of the user ends the program with status 2 and its message; other errors keep their traceback. With the
    environment variable ``MMDEFOCUS_TRACEBACK=1``, all errors keep it. A training that was told to stop ends with the
    status 128 + signal.

    Args:
        parser: Parser of the tool.
        action: Work of the tool. No runner outlives the call.
        also: Further errors whose messages address the user.
    """
    status: Any = None
    message = None
    try:
        with without_their_warnings():
            action()
    except SystemExit as stop:
        status = stop.code
    except Exception as error:
        message = _message(error, also)  # The error itself would keep the runner alive.
        if message is None or os.environ.get('MMDEFOCUS_TRACEBACK') == '1':
            raise
    leave_process_group()
    if message is not None:
        parser.exit(2, f'error: {message}\n')
    if status:
        sys.exit(status)


def _message(error: Exception, also: tuple[type[Exception], ...]) -> str | None:
    """Return the message for the user, or None if there is none but the traceback."""
    in_worker = 'in DataLoader worker process' in str(error)
    if isinstance(error, USER_ERRORS):
        # PyTorch repeats errors of its worker processes with their traceback as the message.
        return str(error).rpartition(f'{type(error).__name__}: ')[2].strip() if in_worker else str(error)
    described = describe_failure(error)
    return str(error) if described is None and isinstance(error, also) else described
