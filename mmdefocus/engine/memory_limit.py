"""How much memory a training may take on this machine."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

GPU_SHARE, CPU_SHARE = 0.9, 0.8


def memory_limit(device: str) -> int:
    """Return the bytes that a training may take on a device, for each of the processes of this machine.

    On a GPU: nine tenths of its memory, or what is free, if that is less. On a CPU: eight tenths of the available
    memory, within the limits of the control groups (v1 and v2) of this process, divided by ``LOCAL_WORLD_SIZE``.

    Args:
        device: ``'cpu'``, ``'cuda'`` or ``'cuda:0'``.
    """
    if torch.device(device).type == 'cuda':
        free, total = torch.cuda.mem_get_info(device)
        return min(int(GPU_SHARE * total), free)
    available = min([psutil.virtual_memory().available, *_left_in_groups()])
    return int(CPU_SHARE * available) // int(os.environ.get('LOCAL_WORLD_SIZE', 1))


def _left_in_groups(groups: str = '/proc/self/cgroup', mount: str = '/sys/fs/cgroup') -> Iterator[int]:
    """Yield the bytes that the limit of each control group of this process leaves."""
    try:
        lines = Path(groups).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(':', 2)
        if controllers == '':
            root, names = Path(mount), ('memory.max', 'memory.current', 'inactive_file')
        elif 'memory' in controllers.split(','):
            root = Path(mount) / 'memory'
            names = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')
        else:
            continue
        folder = root / path.lstrip('/')
        for group in (folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)):
            limit, usage = (_number(group / name) for name in names[:2])
            if limit is not None and usage is not None:
                yield max(limit - usage + _cached(group, names[2]), 0)


def _number(path: Path) -> int | None:
    """Return the number in a file; None without the file, or if it says ``max``."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cached(group: Path, name: str) -> int:
    """Return the bytes of cached files that the kernel gives up first."""
    try:
        found = re.search(rf'^{name} (\d+)$', (group / 'memory.stat').read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
