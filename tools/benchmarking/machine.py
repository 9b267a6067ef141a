"""Measure time, memory and peak rates of the device that a benchmark runs on."""

import ctypes
import dataclasses
import functools
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarking.gpu_timing import Timing, capture, time_on_gpu

from mmdefocus.ops import available_backends

COPIED_BYTES = 2**28
EXPS_IN_CACHE = (2**15, 2**16, 2**17)  # floats per thread
CHAINED_EXPS = 256
# A chain of exponentials in a register: torch.exp would measure memory bandwidth instead.
CUDA_EXPS = f"""
template <typename T> T chained_exps(T x) {{
  for (int i = 0; i < {CHAINED_EXPS}; ++i) x = __expf(-x);
  return x;
}}
"""
MOST_EXPS = 2**27
MATRIX_SIDE = {'cpu': 1024, 'cuda': 8192}


class Machine:
    """Run measurements on one device.

    Attributes:
        device: CPU or CUDA device.
        seconds: Time for which each function is repeated.
        cuda_graphs: :meth:`timing` also times calls as CUDA graphs.
        copy_rate: Measured bytes read and written per second.
        exp_rate: Measured exponentials per second.
    """

    def __init__(self, device: torch.device, seconds: float, cuda_graphs: bool = False) -> None:
        self.device = device
        self.seconds = seconds
        self.cuda_graphs = cuda_graphs
        if device.type == 'cuda':
            torch.cuda.set_device(device)  # events are recorded on the current device
        self.copy_rate = self._copy_rate()
        self.exp_rate = self._exp_rate()

    def best_seconds(self, function: Callable[[], object], at_least: int = 0) -> float:
        """Return the time of the fastest run; see :meth:`timing`."""
        return self._best(function, at_least).seconds

    def timing(self, function: Callable[[], object], at_least: int = 0) -> Timing:
        """Time a function.

        On a CPU, runs are repeated for ``self.seconds`` after one warm-up run. A warm-up run that takes longer than
        that is the only run, unless ``at_least`` asks for more. On a GPU, batches of queued calls are.

        Args:
            function: Function to time.
            at_least: Smallest number of runs after the warm-up run; 0 means 3, or none after a long warm-up run.
        """
        plain = self._best(function, at_least)
        if not self.cuda_graphs:
            return plain
        try:
            graph_seconds = self._best(capture(function), at_least).seconds
        except RuntimeError as error:
            print(f'not captured as a CUDA graph: {str(error).splitlines()[0]}', flush=True)
            return plain
        return dataclasses.replace(plain, graph_seconds=graph_seconds)

    def _best(self, function: Callable[[], object], at_least: int) -> Timing:
        if self.device.type == 'cuda':
            return time_on_gpu(function, self.seconds, at_least)
        warm_up = self._seconds(function)
        if warm_up > self.seconds and not at_least:
            return Timing(warm_up)
        runs: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(runs) < (at_least or 3) or time.perf_counter() < end:
            runs.append(self._seconds(function))
        return Timing(min(runs))

    def _seconds(self, function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def peak_bytes(self, function: Callable[[], object]) -> int:
        """Return the peak of the memory that torch allocates during one run, results included."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            _results = function()
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device) - before
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
            _results = function()
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return max(itertools.accumulate(changes), default=0)

    def exp_seconds(self, count: int) -> float:
        """Return the time of `torch.exp` on `count` floats in memory, extrapolated beyond ``MOST_EXPS``."""
        measured = min(count, MOST_EXPS)
        values = torch.randn(measured, device=self.device)
        out = torch.empty_like(values)
        return self.best_seconds(lambda: torch.exp(values, out=out), at_least=5) * count / measured

    def roofline_seconds(
        self, bytes_moved: int, exponentials: int, matrix_flops: int, dtype: torch.dtype
    ) -> tuple[float, float, float]:
        """Return the times of the memory traffic, the exponentials and the matrix products at the measured rates."""
        products = matrix_flops / self.matrix_rate(dtype) if matrix_flops else 0.0
        return bytes_moved / self.copy_rate, exponentials / self.exp_rate, products

    @functools.cache  # noqa: B019 - one instance lives as long as the program
    def matrix_rate(self, dtype: torch.dtype) -> float:
        """Measure the FLOPs per second of a product of large matrices."""
        side = MATRIX_SIDE[self.device.type]
        matrix = torch.randn(side, side, device=self.device).to(dtype)
        out = torch.empty_like(matrix)
        return 2 * side**3 / self.best_seconds(lambda: torch.mm(matrix, matrix, out=out))

    def _copy_rate(self) -> float:
        source = torch.ones(COPIED_BYTES // 4, device=self.device)
        target = torch.empty_like(source)
        return 2 * COPIED_BYTES / self.best_seconds(lambda: target.copy_(source), at_least=5)

    def _exp_rate(self) -> float:
        if self.device.type == 'cpu':
            return max(self._exp_rate_of(count * torch.get_num_threads()) for count in EXPS_IN_CACHE)
        values = torch.ones(2**24, device=self.device)
        exps = torch.cuda.jiterator._create_jit_fn(CUDA_EXPS)
        return values.numel() * CHAINED_EXPS / self.best_seconds(lambda: exps(values), at_least=5)

    def _exp_rate_of(self, count: int) -> float:
        values = torch.randn(count)
        out = torch.empty_like(values)
        return count / self.best_seconds(lambda: torch.exp(values, out=out), at_least=5)

    def description(self) -> str:
        """Describe the device, its load and its measured peak rates for the report."""
        limits = f'{self.copy_rate / 1e9:.1f} GB/s copying, {self.exp_rate / 1e9:.2f} · 10⁹ exponentials per second'
        return f'{describe(self.device)}. Measured limits: {limits}.'


def describe(device: torch.device) -> str:
    """Describe the processor, its load average and the versions of the software."""
    versions = f'torch {torch.__version__}, Python {platform.python_version()}'
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, {versions}'
    built = available_backends()['cpp'] is None
    kernels = f', {torch.ops.mmdefocus.cpu_instruction_set()} kernels' if built else ''
    load = f', load {os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else ''
    return f'{processor()}, {torch.get_num_threads()} threads{kernels}{load}, {versions}'


def size_in_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc on Linux."""
    return ctypes.CDLL(None) if sys.platform.startswith('linux') and platform.libc_ver()[0] == 'glibc' else None


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for reuse; otherwise every large result costs page faults.

    Call this at the start of a program: the setting cannot be undone.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD


def return_freed_memory() -> None:
    """Give the freed memory that glibc keeps back to the system: large networks in turns would fragment it."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
