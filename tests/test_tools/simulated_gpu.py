"""A GPU in simulated time, in place of ``torch.cuda`` and the clock in ``benchmarking.gpu_timing``."""

from contextlib import nullcontext

RATE = 1e9  # cycles per second of the spin kernel


class SimulatedGpu:
    """Run kernels in order of their launches; a launch waits while the queue is full.

    Args:
        launch: Seconds that Python takes to launch a kernel.
        kernel: Seconds that the GPU takes to run it.
        depth: Largest number of kernels in the queue.
    """

    def __init__(self, launch: float, kernel: float, depth: int = 1024) -> None:
        self.launch, self.kernel, self.depth = launch, kernel, depth
        self.now = 0.0
        self.ends: list[float] = []
        self.log: list[str] = []
        self.graphs: list[Graph] = []
        self.capturing = False

    def run(self, seconds: float, host: float = 1e-6) -> float:
        """Launch a kernel and return the time of its end."""
        self.now += host
        if len(self.ends) >= self.depth:
            self.now = max(self.now, self.ends[-self.depth])
        self.ends.append(max(self.now, self.ends[-1] if self.ends else 0.0) + seconds)
        return self.ends[-1]

    def call(self) -> None:
        """Be the function under test: one kernel."""
        self.log.append('captured' if self.capturing else 'call')
        if not self.capturing:
            self.run(self.kernel, self.launch)

    def perf_counter(self) -> float:
        self.now += 1e-7
        return self.now

    def synchronize(self) -> None:
        """Wait for all kernels, as ``torch.cuda.synchronize``."""
        self.log.append('synchronize')
        self.now = max([self.now, *self.ends[-1:]])

    def _sleep(self, cycles: int) -> None:
        self.log.append('spin')
        self.run(cycles / RATE)

    def Event(self, enable_timing: bool) -> 'Event':
        assert enable_timing
        return Event(self)

    def Stream(self) -> 'SimulatedGpu':
        return self

    current_stream = Stream

    def wait_stream(self, stream: 'SimulatedGpu') -> None:
        assert stream is self

    def stream(self, stream: 'SimulatedGpu') -> nullcontext:
        return nullcontext()

    def CUDAGraph(self) -> 'Graph':
        self.graphs.append(Graph(self))
        return self.graphs[-1]

    def graph(self, graph: 'Graph') -> 'Graph':
        return graph


class Event:
    """The moment at which the GPU has finished what was launched before."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self.gpu, self.at = gpu, float('nan')

    def record(self) -> None:
        self.gpu.log.append('event')
        self.at = self.gpu.run(0.0)

    def query(self) -> bool:
        return self.gpu.now >= self.at

    def elapsed_time(self, after: 'Event') -> float:
        """Return the milliseconds between two events that have passed."""
        assert self.gpu.now >= after.at, 'the GPU has not reached the event'
        return (after.at - self.at) * 1e3


class Graph:
    """A captured call: its replay is one launch, quick for Python."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self.gpu, self.replays = gpu, 0

    def __enter__(self) -> None:
        self.gpu.capturing = True

    def __exit__(self, *_: object) -> None:
        self.gpu.capturing = False

    def replay(self) -> None:
        self.replays += 1
        self.gpu.run(self.gpu.kernel)
