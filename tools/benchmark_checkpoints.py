"""Time the saving of checkpoints: MMEngine's hook against the one that loses none.

    python tools/benchmark_checkpoints.py
    python tools/benchmark_checkpoints.py --directory /mnt/shared --repeats 5

The checkpoint is that of a training of the config with AdamW and an average of the weights, with random values: by
default the base classifier. Both hooks save it in turn to the same directory, as with `max_keep_ckpts=1`: each file has
a new name, and MMEngine's hook removes the last one before it writes, the other one afterwards. Before anything is
timed, both files must load, hold what was saved and be equal; otherwise the exit code is 1. `save` is the time for
which the training waits. MMEngine's hook leaves the file in the memory of the operating system; `save and sync` is the
time until it is on the disk. Run nothing else on the machine meanwhile.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarking.report import table
from mmengine.fileio import get_file_backend
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import save_checkpoint
from torch import Tensor

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.checkpoints import check_checkpoint
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.engine.safe_writing import BACKEND
from mmdefocus.models.checkpoint import read_checkpoint

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'classification' / 'defocus_mamba_base.py'
BACKENDS = {'CheckpointHook': 'local', 'DefocusCheckpointHook': BACKEND}
HEADER = ('hook', 'save, s', 'save and sync, s', 'file, GB')


def training_state(config: str) -> dict[str, Any]:
    """Return the tensors of a checkpoint of this config: weights, their average, and two moments."""
    cfg = load_config(config)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    weights = model.state_dict()
    average = {f'module.{name}': tensor.clone() for name, tensor in weights.items()}
    return dict(state_dict=weights, ema_state_dict=average, optimizer=optimizer.state_dict())


def seconds(state: dict[str, Any], path: Path, hook: str, last: Path | None = None) -> tuple[float, float]:
    """Return the time until the hook has saved a file and removed the last one, and until the file is on the disk."""
    backend_args = dict(backend=BACKENDS[hook])
    backend = get_file_backend(backend_args=backend_args)
    os.sync()
    start = time.perf_counter()
    if last is not None and hook == 'CheckpointHook':
        backend.remove(last)
    save_checkpoint(state, str(path), backend_args=backend_args)
    if last is not None and hook == 'DefocusCheckpointHook':
        backend.remove(last)
    saved = time.perf_counter() - start
    with path.open('rb') as file:
        os.fsync(file.fileno())
    return saved, time.perf_counter() - start


def defect(state: dict[str, Any], paths: Sequence[Path]) -> str | None:
    """Return what is wrong with the files, or None."""
    for path in paths:
        check_checkpoint(str(path))
        saved = list(_tensors(read_checkpoint(path)))
        if not all(torch.equal(*pair) for pair in zip(saved, _tensors(state), strict=True)):
            return f'{path.name} differs from what was saved'
    first, second = (path.read_bytes() for path in paths)
    return None if first == second else 'the hooks wrote different files'


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)


def measure(state: dict[str, Any], last: dict[str, Path], repeats: int) -> list[tuple[str, ...]]:
    """Return the rows of the table: medians."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in BACKENDS}
    size = last['CheckpointHook'].stat().st_size
    for number in range(repeats):
        for name in BACKENDS:
            path = last[name].with_name(f'{name}_{number}.pth')
            times[name].append(seconds(state, path, name, last[name]))
            last[name] = path
    return [
        (name, *(f'{statistics.median(column):.3g}' for column in zip(*pairs, strict=True)), f'{size / 1e9:.2f}')
        for name, pairs in times.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(CONFIG), help='config file (default: the base classifier)')
    parser.add_argument('--directory', default='.', help='directory on the file system to measure (default: this one)')
    parser.add_argument('--repeats', type=int, default=5, help='checkpoints per hook; the median counts (default: 5)')
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error(f'--repeats must be positive, got {arguments.repeats}')
    if not Path(arguments.directory).is_dir():
        parser.error(f"--directory: '{arguments.directory}' is no directory")
    torch.manual_seed(0)
    try:
        state = training_state(arguments.config)
    except UsageError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        paths = {name: Path(directory) / f'{name}.pth' for name in BACKENDS}
        for name, path in paths.items():
            seconds(state, path, name)
        reason = defect(state, list(paths.values()))
        if reason is not None:
            print(f'NOT TIMED: {reason}', file=sys.stderr)
            return 1
        print(table(HEADER, measure(state, paths, arguments.repeats)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
