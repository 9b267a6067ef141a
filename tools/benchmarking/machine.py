"""The machine that a benchmark runs on: its clock, its memory and its measured limits."""

import ctypes
import functools
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mmdefocus.ops import available_backends

COPIED_BYTES = 2**28
EXPS_IN_CACHE = (2**15, 2**16, 2**17)  # floats per thread
CHAINED_EXPS = 256
# One exponential after the other in a register: a plain torch.exp would measure the cache.
CUDA_EXPS = f"""
template <typename T> T chained_exps(T x) {{
  for (int i = 0; i < {CHAINED_EXPS}; ++i) x = __expf(-x);
  return x;
}}
"""
MOST_EXPS = 2**27
MATRIX_SIDE = {'cpu': 1024, 'cuda': 8192}


class Machine:
    """Measures on one device.

    Attributes:
        device: Where.
        seconds: How long a function is repeated.
        copy_rate: Bytes read and written per second.
        exp_rate: Exponentials per second.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device = device
        self.seconds = seconds
        if device.type == 'cuda':
            torch.cuda.set_device(device)  # events belong to the current one
        self.copy_rate = self._copy_rate()
        self.exp_rate = self._exp_rate()

    def best_seconds(self, function: Callable[[], object], at_least: int = 0) -> float:
        """The shortest of the runs of ``self.seconds``, and of at least as many as given.

        A run before them warms up. If that takes longer than all may, and no more are asked for, it is the only one.
        """
        warm_up = self._seconds(function)
        if warm_up > self.seconds and not at_least:
            return warm_up
        runs: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(runs) < (at_least or 3) or time.perf_counter() < end:
            runs.append(self._seconds(function))
        return min(runs)

    def _seconds(self, function: Callable[[], object]) -> float:
        if self.device.type == 'cpu':
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self.device)
        before.record()
        function()
        after.record()
        torch.cuda.synchronize(self.device)
        return before.elapsed_time(after) / 1e3

    def peak_bytes(self, function: Callable[[], object]) -> int:
        """The most memory that torch has allocated at a time in a run, its results included, more than before it."""
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
        """The time of `torch.exp` on `count` floats in memory, extrapolated where these are very many."""
        measured = min(count, MOST_EXPS)
        values = torch.randn(measured, device=self.device)
        out = torch.empty_like(values)
        return self.best_seconds(lambda: torch.exp(values, out=out), at_least=5) * count / measured

    def least_seconds(
        self, bytes_moved: int, exponentials: int, matrix_flops: int, dtype: torch.dtype
    ) -> tuple[float, float, float]:
        """The times that the machine needs to copy these bytes, for exponentials, and for matrix products of a type."""
        products = matrix_flops / self.matrix_rate(dtype) if matrix_flops else 0.0
        return bytes_moved / self.copy_rate, exponentials / self.exp_rate, products

    @functools.cache  # noqa: B019 - there is one machine, for the whole run
    def matrix_rate(self, dtype: torch.dtype) -> float:
        """FLOPs per second of a product of large matrices."""
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
        """What it is, how busy it was, and its limits."""
        limits = f'{self.copy_rate / 1e9:.1f} GB/s copying, {self.exp_rate / 1e9:.2f} · 10⁹ exponentials per second'
        return f'{describe(self.device)}. Measured limits: {limits}.'


def describe(device: torch.device) -> str:
    """The processor, the versions of what runs on it, and how busy it is."""
    versions = f'torch {torch.__version__}, Python {platform.python_version()}'
    if device.type == 'cuda':
        return f'{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, {versions}'
    built = available_backends()['cpp'] is None
    kernels = f', {torch.ops.mmdefocus.cpu_instruction_set()} kernels' if built else ''
    load = f', load {os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else ''
    return f'{processor()}, {torch.get_num_threads()} threads{kernels}{load}, {versions}'


def size_in_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def keep_freed_memory() -> None:
    """Lets glibc reuse memory instead of giving it back: else large results cost page faults at every call.

    For the start of a program: there is no way back.
    """
    if sys.platform.startswith('linux') and platform.libc_ver()[0] == 'glibc':
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD


def processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text(encoding='utf-8').splitlines() if cpuinfo.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
