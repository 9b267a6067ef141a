"""Peak memory of a function on the CPU or a GPU."""

import itertools
import os
from collections.abc import Callable

import torch


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes that torch allocates during a call, beyond those allocated before.

    Args:
        function: Function to call once.
        device: CPU or CUDA device on which it computes.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # without a GPU, the profiler reports its lack as an error
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True) as profile:
        function()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes), default=0)
