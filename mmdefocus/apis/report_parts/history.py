"""What a training has logged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.checkpoints import check_checkpoint, find_best_checkpoint
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.models.checkpoint import CheckpointError, read_checkpoint

Series = tuple[list[float], list[float]]


@dataclass(frozen=True)
class History:
    """Scalars of all runs of a training, interrupted and resumed ones included.

    Attributes:
        steps: Scalars by iteration, ascending. Where runs overlap, the last one counts.
        validations: Scalars by the step of the validation, ascending: epochs, or iterations.
        runs: Number of runs.
        notes: What could not be read; one sentence each.
    """

    steps: Mapping[int, Mapping[str, float]]
    validations: Mapping[int, Mapping[str, float]]
    runs: int
    notes: tuple[str, ...] = ()

    def series(self, name: str) -> Series:
        """Return iterations and values of a scalar of the training."""
        found = [(step, values[name]) for step, values in self.steps.items() if name in values]
        return [float(step) for step, _ in found], [float(value) for _, value in found]

    def validation_series(self, name: str) -> Series:
        """Return steps and values of a scalar of the validations."""
        found = [(step, values[name]) for step, values in self.validations.items() if name in values]
        return [float(step) for step, _ in found], [float(value) for _, value in found]


def read_history(work_dir: Path) -> History:
    """Read the scalars of a work directory, ``*/vis_data/scalars.json``."""
    steps: dict[int, dict[str, float]] = {}
    validations: dict[int, dict[str, float]] = {}
    notes: list[str] = []
    runs = 0
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        unreadable, logged = 0, False
        for line in file.read_text('utf-8', errors='replace').splitlines():
            try:
                entry: Any = json.loads(line)
            except ValueError:
                unreadable += 1
                continue
            scalars = {name: value for name, value in entry.items() if isinstance(value, int | float)}
            if 'step' not in scalars:
                continue
            (steps if 'iter' in scalars else validations)[int(scalars['step'])] = scalars
            logged = True
        if unreadable:
            notes.append(f'{unreadable} lines of {file.relative_to(work_dir)} are no JSON and are left out.')
        runs += logged
    return History(dict(sorted(steps.items())), dict(sorted(validations.items())), runs, tuple(notes))


def find_config(work_dir: Path) -> Path:
    """Find the config that a training saved in its work directory.

    Raises:
        UsageError: The directory does not exist, or has no config.
    """
    if not work_dir.is_dir():
        raise UsageError(f"the work directory '{work_dir}' does not exist; name that of a training")
    configs = sorted(work_dir.glob('*.py'), key=lambda path: (path.stat().st_mtime, path.name))
    configs = configs or sorted(work_dir.glob('*/vis_data/config.py'))
    if not configs:
        raise UsageError(f"'{work_dir}' has no config; expected the work directory of a training: correct it")
    return configs[-1]


def find_checkpoint(work_dir: Path, requested: str | Path | None) -> Path:
    """Find the checkpoint to report on: the requested one, the newest best one, or the newest one.

    Raises:
        UsageError: There is none, or the requested one cannot be read.
    """
    if requested is not None:
        return Path(check_checkpoint(str(requested))).expanduser()
    return Path(check_checkpoint(str(find_best_checkpoint(work_dir))))


def find_seed(checkpoint: Path) -> int | None:
    """Return the seed of the training of a checkpoint, which a resumed training keeps; None if it has none."""
    try:
        meta = read_checkpoint(checkpoint, map_location='meta', checksums=False).get('meta')
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    seed = meta.get('seed') if isinstance(meta, Mapping) else None
    return seed if isinstance(seed, int) else None


def find_start(work_dir: Path, cfg: Config) -> str | None:
    """Return the weights from which a training started; None if it started from initial ones.

    The config of a resumed run names the checkpoint at which it was resumed; that of the first run has the start.

    Raises:
        UsageError: The training was resumed, and the config of the first run is gone.
    """
    if not cfg.get('resume'):
        return cfg.get('load_from')
    for file in sorted(work_dir.glob('*/vis_data/config.py')):
        first = load_config(file)
        if not first.get('resume'):
            return first.get('load_from')
    raise UsageError(f"'{work_dir}' has a resumed training without the config of its first run; restore */vis_data")
