"""Run the command of a stage with a time limit, in a process group that ends with it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

POLL = 0.1
GRACE = 5.0  # seconds between SIGTERM and SIGKILL, and to wait for the latter


def run_limited(
    command: Sequence[str],
    log: Path,
    limit: float,
    environment: Mapping[str, str],
    cwd: Path,
    report: Callable[[float], None],
    interval: float = 15.0,
) -> int | None:
    """Run a command; at its time limit, end it and all processes that it started.

    Args:
        command: Program and arguments.
        log: File for its output.
        limit: Seconds that it may take.
        environment: All environment variables.
        cwd: Directory to run in.
        report: Called with the elapsed seconds every ``interval`` seconds.
        interval: Seconds between calls of ``report``.

    Returns:
        The exit status, negative for a signal; None if the command reached the limit.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('wb') as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return _wait(process, limit, report, interval)
    finally:  # also after Ctrl-C, which the group does not get
        _end_group(process)


def _wait(process: subprocess.Popen, limit: float, report: Callable[[float], None], interval: float) -> int | None:
    start = time.monotonic()
    due = interval
    while process.poll() is None:
        elapsed = time.monotonic() - start
        if elapsed >= limit:
            return None
        if elapsed >= due:
            report(elapsed)
            due += interval
        time.sleep(min(POLL, limit - elapsed))
    return process.returncode


def _end_group(process: subprocess.Popen) -> None:
    """End what is left of the group of a process. A process that the driver holds may stay; it is not waited for."""
    for number in (signal.SIGTERM, signal.SIGKILL) if process.poll() is None else (signal.SIGKILL,):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
