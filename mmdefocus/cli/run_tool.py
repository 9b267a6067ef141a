"""Run a command-line tool: print its errors, leave its process group."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from mmdefocus.apis.errors import UsageError
from mmdefocus.datasets.errors import DataError
from mmdefocus.engine.errors import SetupError
from mmdefocus.engine.safe_writing import SavingError
from mmdefocus.models.checkpoint import CheckpointError

from .launcher import leave_process_group

# Their messages address the user, who needs no traceback.
USER_ERRORS = (UsageError, CheckpointError, SetupError, DataError, SavingError)


def run_tool(parser: argparse.ArgumentParser, action: Callable[[], None]) -> None:
    """Run a tool and leave its process group.

    An error of the user ends the program with status 2 and its message; other errors keep their traceback. A training
    that was told to stop ends with the status 128 + signal.

    Args:
        parser: Parser of the tool.
        action: Work of the tool. No runner outlives the call.
    """
    status: Any = None
    message = None
    try:
        action()
    except USER_ERRORS as error:
        message = str(error)  # The error itself would keep the runner alive.
    except SystemExit as stop:
        status = stop.code
    leave_process_group()
    if message is not None:
        parser.exit(2, f'error: {message}\n')
    if status:
        sys.exit(status)
