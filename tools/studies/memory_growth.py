"""Memory and open files of a training and an evaluation on many small images, along the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco
from mmdefocus.datasets.prepared import prepare_data

MIB = 2**20
WARM_UP, INTERVAL = 0.1, 0.02
MOST_GROWTH = 10 * MIB


@dataclass(frozen=True)
class Sample:
    """Memory and open files at one moment.

    Attributes:
        phase: ``train`` or ``val``.
        share: Done share of the phase, from 0 to 1.
        memory: Resident memory of the process and its data workers in bytes.
        files: Open file descriptors of the process.
    """

    phase: str
    share: float
    memory: int
    files: int


class GrowthHook(Hook):
    """Sample memory and open files after every fiftieth of the steps of a phase, once a tenth of it is done."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, *rest: object, **more: object) -> None:
        """Sample the training."""
        self._sample('train', batch_idx + 1, len(runner.train_dataloader))

    def after_val_iter(self, runner: Runner, batch_idx: int, *rest: object, **more: object) -> None:
        """Sample the evaluation."""
        self._sample('val', batch_idx + 1, len(runner.val_dataloader))

    def _sample(self, phase: str, done: int, total: int) -> None:
        share = done / total
        if share < WARM_UP or int(share / INTERVAL) == int((done - 1) / total / INTERVAL):
            return
        process = psutil.Process()
        memory = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
        self.samples.append(Sample(phase, share, memory, process.num_fds()))


def growth(samples: Sequence[Sample]) -> tuple[float, int]:
    """Return the growth of memory in bytes and of open files from the first to the last tenth of the samples."""
    tenth = max(len(samples) // 10, 1)
    first, last = samples[:tenth], samples[-tenth:]
    memory = median(one.memory for one in last) - median(one.memory for one in first)
    return memory, max(one.files for one in last) - max(one.files for one in first)


def find_problems(samples: Sequence[Sample], most: float = MOST_GROWTH) -> list[str]:
    """Say what grows in a phase.

    Args:
        samples: Samples of all phases.
        most: Allowed growth of memory in bytes.

    Raises:
        ValueError: A phase has fewer than two samples.
    """
    problems = []
    for phase in ('train', 'val'):
        own = [one for one in samples if one.phase == phase]
        if len(own) < 2:
            raise ValueError(f'growth needs at least two samples of {phase}, got {len(own)}; use more images')
        memory, files = growth(own)
        if memory > most:
            problems.append(f'{phase}: memory grew by {memory / MIB:.1f} MiB, more than {most / MIB:.0f} MiB')
        if files > 0:
            problems.append(f'{phase}: {files} more files are open at the end')
    return problems


def format_samples(samples: Sequence[Sample], every: int = 5) -> str:
    """Return a table of every few samples, and of the last one of each phase."""
    lines = ['| phase | done | memory in MiB | open files |', '|---|--:|--:|--:|']
    for phase in ('train', 'val'):
        own = [one for one in samples if one.phase == phase]
        for one in [*own[:-1:every], *own[-1:]]:
            lines.append(f'| {phase} | {one.share:.0%} | {one.memory / MIB:.1f} | {one.files} |')
    return '\n'.join(lines)


def run(
    config: Path, work_dir: Path, images: int, side: int, workers: int, batch_size: int, hooks: Sequence[Hook] = ()
) -> list[Sample]:
    """Make a set of digits, prepare it, train one epoch and evaluate.

    Args:
        config: Config of a detector of digits.
        work_dir: Folder of the data and the logs.
        images: Number of images, a fifth of them for the evaluation.
        side: Height and width of the images in pixels.
        workers: Data workers of the training and of the evaluation.
        batch_size: Images in a batch.
        hooks: Further hooks of the training.
    """
    root = work_dir / 'data'
    validation = max(images // 5, 1)
    digit_size = (max(8, side // 5), side // 3)
    make_digits_coco(
        root,
        DigitsOptions(images - validation, validation, side, (1, 3), digit_size, photos=False),
    )
    prepared = prepare_data(root, work_dir / 'prepared')
    cfg = Config.fromfile(config)
    for name in ('train', 'val'):
        loader, split = cfg[f'{name}_dataloader'], prepared.splits[name]
        loader.update(batch_size=batch_size, num_workers=workers, persistent_workers=workers > 0)
        loader.dataset.update(data_root='', ann_file=str(split.ann_file), data_prefix=dict(img=str(split.image_root)))
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (side, side)
    cfg.val_evaluator.update(ann_file=str(prepared.splits['val'].ann_file), classwise=False)
    for name in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg[name] = None
    cfg.model.backbone.img_size = side
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.work_dir = str(work_dir / 'run')
    runner = build_runner(cfg)
    hook = GrowthHook()
    for one in (*hooks, hook):
        runner.register_hook(one)
    runner.train()
    return hook.samples
