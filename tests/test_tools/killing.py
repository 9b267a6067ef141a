"""Kill or signal the process at a chosen moment of a training, and note what it has saved until then."""

import builtins
import errno
import io
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.runner.runner
from mmengine.fileio import LocalBackend
from mmengine.runner import Runner

SAVED = 'saved_iterations'
CALLS = 'calls_of_hooks'


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note_saves(moment: str | None = None, number: int = 0) -> None:
    """Write the iteration of every complete checkpoint to a file; die at the moment of the write with this number."""
    save = Runner.save_checkpoint

    def save_checkpoint(runner: Runner, *arguments: Any, **options: Any) -> None:
        save(runner, *arguments, **options)
        if options.get('save_optimizer', True):
            _append(Path(runner.work_dir) / SAVED, options['meta']['iter'])

    Runner.save_checkpoint = save_checkpoint
    if moment is not None:
        MOMENTS[moment](number)


def die_at_hook(number: int) -> None:
    """Die at the call of a hook point with this number."""
    note_saves()
    Runner.call_hook = _at(Runner.call_hook, number)


def count_hooks() -> None:
    """Write the number of calls of hook points to a file."""
    note_saves()
    numbers, call = itertools.count(1), Runner.call_hook

    def call_hook(runner: Runner, name: str, **options: Any) -> None:
        number = next(numbers)
        call(runner, name, **options)
        if name == 'after_run':
            _append(Path(runner.work_dir) / CALLS, number)

    Runner.call_hook = call_hook


def signal_at(point: str, number: int, *signals: int) -> None:
    """Send signals to this process at a call of a hook point."""

    def send() -> None:
        for name in signals:
            os.kill(os.getpid(), name)

    Runner.call_hook = _at(Runner.call_hook, number, lambda runner, name, **_: name == point, send)


def signal_at_rank(rank: int, point: str, number: int, *signals: int) -> None:
    """Do so in one of several processes."""
    if int(os.environ['RANK']) == rank:
        signal_at(point, number, *signals)


def ignore_and_send(point: str, number: int, *signals: int) -> None:
    """Ignore the signals from the start, and send them nevertheless."""
    for name in signals:
        signal.signal(name, signal.SIG_IGN)
    signal_at(point, number, *signals)


def _at(
    function: Callable,
    number: int,
    counts: Callable[..., bool] = lambda *_, **__: True,
    act: Callable = die,
    after=False,
) -> Callable:
    calls = itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        is_due = counts(*arguments, **options) and next(calls) == number
        if is_due and not after:
            act()
        result = function(*arguments, **options)
        if is_due and after:
            act()
        return result

    return call


def _append(path: Path, number: int) -> None:
    with path.open('a') as file:
        file.write(f'{number}\n')


class _HalfWritten(io.FileIO):
    def write(self, content: bytes) -> int:
        super().write(content[: len(content) // 2])
        os.fsync(self)
        die()
        return 0


def _before_write(number: int) -> None:
    mmengine.runner.runner.save_checkpoint = _at(mmengine.runner.runner.save_checkpoint, number)


def _half_way(number: int) -> None:
    _at_open(number, lambda path: _HalfWritten(path, 'wb'))


def refuse_write(number: int, error: str) -> None:
    """Let the write of a checkpoint with this number fail."""

    class Refused(io.FileIO):
        def write(self, content: bytes) -> int:
            super().write(content[: len(content) // 2])
            code = getattr(errno, error)
            raise OSError(code, os.strerror(code))

    _at_open(number, lambda path: Refused(path, 'wb'))


def fill_disk(number: int) -> None:
    """Let the write of a checkpoint with this number meet a full device."""
    _at_open(number, lambda path: io.FileIO('/dev/full', 'wb'))


def _at_open(number: int, replacement: Callable[[Path], io.FileIO]) -> None:
    whole, writes = builtins.open, itertools.count(1)

    def open_checkpoint(path: Any, mode: str = 'r', *arguments: Any, **options: Any) -> Any:
        is_checkpoint = mode == 'wb' and Path(path).name.removesuffix('.unfinished').endswith('.pth')
        if is_checkpoint and next(writes) == number:
            return replacement(path)
        return whole(path, mode, *arguments, **options)

    builtins.open = open_checkpoint


def _at_rename(number: int, end: str = '.pth', after: bool = False) -> None:
    os.replace = _at(os.replace, number, lambda _, new: str(new).endswith(end), after=after)


def _before_last_checkpoint(number: int) -> None:
    _at_rename(number, 'last_checkpoint')


def _before_removal(number: int) -> None:
    LocalBackend.remove = _at(LocalBackend.remove, number)


MOMENTS: dict[str, Callable[[int], None]] = {
    'before the write': _before_write,
    'half way': _half_way,
    'before the rename': _at_rename,
    'after the rename': lambda number: _at_rename(number, after=True),
    'before last_checkpoint': _before_last_checkpoint,
    'before the removal': _before_removal,
}
