"""A limit of the time that a compilation may take."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimitReached(BaseException):
    """The limit has passed. It is no `Exception`, since compilers catch those."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeLimitReached` in the body when the time has passed.

    It works in the main thread of a process that has alarm signals; elsewhere there is no limit.

    Args:
        seconds: Time that the body may take.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, 'SIGALRM'):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeLimitReached

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
