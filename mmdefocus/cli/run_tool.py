"""Run a command-line tool: print its errors, leave its process group."""

import argparse
from collections.abc import Callable

from mmdefocus.apis.errors import UsageError
from mmdefocus.datasets.errors import DataError
from mmdefocus.engine.errors import SetupError
from mmdefocus.models.checkpoint import CheckpointError

from .launcher import leave_process_group

# Their messages address the user, who needs no traceback.
USER_ERRORS = (UsageError, CheckpointError, SetupError, DataError)


def run_tool(parser: argparse.ArgumentParser, action: Callable[[], None]) -> None:
    """Run a tool and leave its process group.

    An error of the user ends the program with status 2 and its message; other errors keep their traceback.

    Args:
        parser: Parser of the tool.
        action: Work of the tool. No runner outlives the call.
    """
    message = None
    try:
        action()
    except USER_ERRORS as error:
        message = str(error)  # The error itself would keep the runner alive.
    leave_process_group()
    if message is not None:
        parser.exit(2, f'error: {message}\n')
