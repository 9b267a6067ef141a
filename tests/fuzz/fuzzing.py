"""What all fuzz targets share: settings of Hypothesis, mutations of files, and limits of time, memory and actions.

In the test suite, the targets run their explicit examples and a few others, always the same. With ``FUZZ_SECONDS`` in
the environment, they run new random examples until this time is over.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

SEEDS = Path(__file__).parent / 'seeds'
SECONDS = float(os.environ.get('FUZZ_SECONDS', '0'))
FUZZ = settings(
    max_examples=100 if SECONDS else 10,
    derandomize=not SECONDS,
    database=DirectoryBasedExampleDatabase(Path('.hypothesis', 'fuzz')) if SECONDS else None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=bool(SECONDS),
)
LONGEST_SECONDS = 20
LARGEST_GROWTH_KB = 2**18
# Audit events of Python that no target may raise; `pickle.find_class` would resolve a name in a pickle.
FORBIDDEN = (
    'os.system',
    'os.exec',
    'os.fork',
    'os.posix_spawn',
    'subprocess.Popen',
    'pickle.find_class',
    'socket.connect',
)
# Python code that leaves a trace; torch itself evaluates code, which the event `exec` does not distinguish.
CODE = "__import__('sys').code_of_a_file_ran = True"

examples = 0
_watching = False
_events: list[str] = []


def _audit(event: str, _: object) -> None:
    if _watching and event in FORBIDDEN:
        _events.append(event)


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[None]:
    """Fail if the block takes too long, too much memory, or does what no target needs."""
    global _watching, examples
    examples += 1
    _events.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f'it takes more than {LONGEST_SECONDS} s'))
    signal.alarm(LONGEST_SECONDS)
    _watching = True
    try:
        yield
    finally:
        _watching = False
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    assert not _events, f'reading it caused {_events}'
    assert not hasattr(sys, 'code_of_a_file_ran')
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < LARGEST_GROWTH_KB, f'it needs {growth:,} KiB'


def mutations() -> st.SearchStrategy[list[tuple[str, int, bytes]]]:
    """Changes of a sequence of bytes, most of them near its ends, for :func:`mutate`."""
    places = st.one_of(st.integers(0, 200), st.integers(-400, -1), st.integers(0, 2**31))
    kinds = st.sampled_from(('flip', 'set', 'insert', 'delete', 'truncate', 'repeat'))
    return st.lists(st.tuples(kinds, places, st.binary(min_size=1, max_size=8)), min_size=1, max_size=5)


def mutate(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Apply the changes of :func:`mutations`."""
    for kind, place, data in changes:
        at = place % max(len(content), 1)
        rest = {
            'flip': bytes([content[at] ^ (data[0] or 1)]) + content[at + 1 :] if content else data,
            'set': data + content[at + len(data) :],
            'insert': data + content[at:],
            'delete': content[at + data[0] :],
            'truncate': b'',
            'repeat': content[at : at + data[0]] + content[at:],
        }[kind]
        content = content[:at] + rest
    return content
