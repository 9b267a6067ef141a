"""Processes of tools/train.py that may be killed, forked from one that has imported everything."""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from commands import TOOLS

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['preloaded'])


def start(
    root: Path,
    log: str,
    *words: str | Path,
    before: Callable[..., None] | None = None,
    arguments: tuple = (),
    **environment: str,
) -> BaseProcess:
    """Start tools/train.py in ``root`` with its output in the file ``log``, after a call of ``before``."""
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11's server ignores sys.path, and what it cannot import.
        patch.setenv('PYTHONPATH', os.pathsep.join(sys.path))
        forkserver.ensure_running()
    command = ['train.py', *map(str, words)]
    process = CONTEXT.Process(target=_train, args=(root, log, command, before, arguments, environment))
    process.start()
    return process


def finish(process: BaseProcess, log: Path, code: int = 0) -> str:
    """Wait for a process that should end with ``code`` (-9: killed), and return what it printed."""
    process.join(120)
    assert process.exitcode == code, f'{process.exitcode}: {log.read_text()[-3000:]}'
    return log.read_text()


def wait_for(process: BaseProcess, log: Path, text: str) -> None:
    """Wait until a process has printed a text."""
    while not log.is_file() or text not in log.read_text():
        assert process.is_alive(), f'no {text!r} in {log.read_text()[-3000:]}'
        time.sleep(0.01)


def ranks(count: int) -> list[dict[str, str]]:
    """Return the environments of the processes of a distributed training on this machine."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    shared = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE=str(count))
    return [dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(count)]


def _train(root: Path, log: str, command: list[str], before, arguments: tuple, environment: dict[str, str]) -> None:
    assert 'preloaded' in sys.modules, 'the imports would take most of the time of the tests'
    os.chdir(root)
    with open(log, 'w', buffering=1) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdout = os.fdopen(1, 'w', buffering=1)
    sys.stderr = os.fdopen(2, 'w', buffering=1)
    os.environ.update(environment)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # The tests may run in the background, where it is ignored.
    if before is not None:
        before(*arguments)
    sys.argv = command
    runpy.run_path(str(TOOLS / 'train.py'), run_name='__main__')
