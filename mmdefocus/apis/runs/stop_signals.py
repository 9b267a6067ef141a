"""Signals that end a tool before its training has begun."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mmdefocus.engine.stop_signal_hook import catch_stop_signals


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the process with a message at SIGTERM and SIGINT, and restore the former handlers afterwards.

    :class:`~mmdefocus.engine.DefocusStopSignalHook` replaces these handlers while a training can be saved.

    Raises:
        SystemExit: With the status 128 + signal.
    """
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            sys.stderr.write(f'Stopped by {signal.Signals(number).name} before the training; nothing was saved\n')
        raise SystemExit(128 + number)

    former = catch_stop_signals(end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
