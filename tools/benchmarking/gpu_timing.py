"""Time functions on a GPU: calls queued back to back, without the time that Python needs to launch them.

A batch is: a spin kernel, an event, N calls, an event. While the spin kernel runs, Python queues all the rest, so that
the GPU finds the next kernel as soon as one ends. The queue has room for a limited number of launches. A single call of
more launches begins before all are queued, and is host-bound if little work is left when Python is done: the GPU has
waited for launches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from torch import cuda

# Events resolve about 0.5 µs: a batch this long is exact to 0.1 %.
SPAN = 1e-3
MOST_CALLS = 1024
SPIN_CYCLES = 10**7
# The driver queues about a thousand launches and then blocks Python, so that spinning for longer is of no use.
LONGEST_SPIN = 0.1
# Share of a batch that is still queued when Python is done, unless the GPU waited for launches.
LEAST_BACKLOG = 0.05


@dataclass(frozen=True)
class Timing:
    """Time of a call.

    Attributes:
        seconds: Mean of the fastest batch, per call.
        host_bound: Python launched too slowly to keep the GPU busy, and the time contains launches.
        graph_seconds: Time per replay of the call as a CUDA graph; None if it was not asked for or cannot be captured.
    """

    seconds: float
    host_bound: bool = False
    graph_seconds: float | None = None

    @property
    def milliseconds(self) -> str:
        """The time as a cell of a table; host-bound times are marked."""
        return f'{self.seconds * 1e3:.3f}{" (host)" if self.host_bound else ""}'

    @property
    def graph_milliseconds(self) -> str:
        """The time of a replay as a cell of a table; empty without one."""
        return '' if self.graph_seconds is None else f'{self.graph_seconds * 1e3:.3f}'


@dataclass(frozen=True, order=True)
class _Batch:
    """A batch of calls; the better one is smaller.

    Attributes:
        starved: The GPU has waited for launches.
        early: It began before all calls were queued, so that it may have waited.
        seconds: Time per call.
    """

    starved: bool
    early: bool
    seconds: float


def time_on_gpu(function: Callable[[], object], seconds: float, at_least: int = 0) -> Timing:
    """Time a function on the current GPU.

    Args:
        function: Function to time; its results are dropped.
        seconds: Time for which batches are repeated.
        at_least: Smallest number of batches; 0 means 3, or 1 if a call takes longer than ``seconds``.
    """
    _launch_and_run(function)  # compiles, and fills the cache of the allocator
    launching, running = _launch_and_run(function)
    spin_rate = _spin_rate()
    calls = _calls_per_batch(function, launching, spin_rate)
    batches: list[_Batch] = []
    enough = at_least or (3 if running <= seconds else 1)
    end = perf_counter() + seconds
    while len(batches) < enough or (running <= seconds and perf_counter() < end):
        batches.append(_batch(function, calls, launching, spin_rate))
    best = min(batches)
    return Timing(best.seconds, host_bound=best.starved)


def capture(function: Callable[[], object]) -> Callable[[], None]:
    """Capture a call as a CUDA graph and return the function that replays it.

    Raises:
        RuntimeError: The function does what a graph cannot repeat, such as waiting for the GPU.
    """
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):  # warm-up on another stream, as captures need it
        for _ in range(3):
            function()
    cuda.current_stream().wait_stream(stream)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        function()
    return graph.replay


def _launch_and_run(function: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds in which Python launches a call, and those until the GPU has finished it."""
    cuda.synchronize()
    start = perf_counter()
    function()
    launched = perf_counter()
    cuda.synchronize()
    return launched - start, perf_counter() - start


def _spin_rate() -> float:
    """Measure the cycles per second that the spin kernel counts."""
    before, after = (cuda.Event(enable_timing=True) for _ in range(2))
    cuda._sleep(SPIN_CYCLES)
    before.record()
    cuda._sleep(SPIN_CYCLES)
    after.record()
    cuda.synchronize()
    return SPIN_CYCLES / (before.elapsed_time(after) / 1e3)


def _calls_per_batch(function: Callable[[], object], launching: float, spin_rate: float) -> int:
    """Return a number of calls that take ``SPAN`` together, or as many as can be queued."""
    calls = 1
    while calls < MOST_CALLS:
        batch = _batch(function, calls, launching, spin_rate)
        if batch.early:
            return max(1, calls // 2)
        if batch.seconds * calls >= SPAN:
            return calls
        calls *= 2
    return calls


def _batch(function: Callable[[], object], calls: int, launching: float, spin_rate: float) -> _Batch:
    before, after = (cuda.Event(enable_timing=True) for _ in range(2))
    cuda.synchronize()
    cuda._sleep(math.ceil(min(SPAN + 2 * launching * calls, LONGEST_SPIN) * spin_rate))
    before.record()
    for _ in range(calls):
        function()
    after.record()
    early = before.query()
    queued = perf_counter()
    cuda.synchronize()
    backlog = perf_counter() - queued
    span = before.elapsed_time(after) / 1e3
    return _Batch(early and backlog < LEAST_BACKLOG * span, early, span / calls)
