"""Training and testing of a config file, with the result of ``tools/train.py`` and ``tools/test.py``."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

from mmdefocus.engine.amp_prediction import predict_in_mixed_precision
from mmdefocus.engine.safe_writing import write_safely

from .errors import UsageError
from .runs.config_file import load_config
from .runs.run_options import apply_test_options, apply_train_options
from .runs.runner import build_runner, train
from .runs.stop_signals import ended_by_signals

CONFIG_NAME = 'config.py'


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        work_dir: Folder with config, checkpoints and logs.
        checkpoint: Best checkpoint; the last one if there was no evaluation; None after a trial on a few images.
        metrics: Metrics of this checkpoint by name, as the evaluator of the config gives them.
        passed: Whether a trial on a few images reached its target; None after a training.
        verdict: What the trial says about data and model, with the usual causes of a failure; None after a training.
    """

    work_dir: Path
    checkpoint: Path | None
    metrics: dict[str, float] = field(default_factory=dict)
    passed: bool | None = None
    verdict: str | None = None


def check_new_work_dir(work_dir: Path, resume: bool) -> None:
    """Raise ``UsageError`` if a training would overwrite the checkpoints of another one."""
    if not resume and any(work_dir.glob('*.pth')):
        raise UsageError(
            f"'{work_dir}' has the checkpoints of a training; continue it with resume=True (--resume), or name another "
            'folder with work_dir (--work-dir)'
        )


def write_config(cfg: Config, work_dir: Path) -> Path:
    """Write the complete config of a training to ``config.py`` in its work directory."""
    path = work_dir / CONFIG_NAME
    write_safely(path, cfg.pretty_text.encode())
    return path


def run_training(path: Path, resume: bool = False, amp: bool = False, launcher: str = 'none') -> TrainingResult:
    """Train a config file.

    Args:
        path: Config with a ``work_dir``.
        resume: Continue from the newest checkpoint of the work directory, if there is one.
        amp: Train in mixed precision.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
    """
    with ended_by_signals():
        cfg = load_config(path, launcher=launcher)
        apply_train_options(cfg, amp, resume='auto' if resume else None)
        return _result(train(cfg))


def run_test(cfg: Config, weights: str, amp: bool = False) -> dict[str, float]:
    """Evaluate weights on the test set of a config. Logs go to the folder ``test`` of its work directory.

    Args:
        cfg: Config with a ``work_dir``; it is not changed.
        weights: Path or address of a checkpoint.
        amp: Compute in mixed precision.

    Returns:
        Metrics by name.
    """
    cfg = copy.deepcopy(cfg)
    apply_test_options(cfg, weights)
    runner = build_runner(cfg)
    if amp:
        predict_in_mixed_precision(runner.model)
    return {name: float(value) for name, value in runner.test().items()}


def with_test_set(cfg: Config, split: str) -> Config:
    """Return a copy of a config whose test set is the split ``train``, ``val`` or ``test``.

    Training images are read by the test pipeline.
    """
    cfg = copy.deepcopy(cfg)
    if split == 'test':
        return cfg
    cfg.test_dataloader = copy.deepcopy(cfg.val_dataloader)
    cfg.test_evaluator = copy.deepcopy(cfg.val_evaluator)
    if split == 'train':
        source = cfg.train_dataloader.dataset
        while 'dataset' in source:
            source = source.dataset
        for key in ('ann_file', 'data_root', 'data_prefix', 'metainfo', 'classes'):
            if key in source:
                cfg.test_dataloader.dataset[key] = source[key]
        root, file = source.get('data_root') or '', source.get('ann_file')
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        for evaluator in evaluators:
            if 'ann_file' in evaluator and file is not None:
                evaluator.ann_file = str(Path(root) / file)
    return cfg


def _result(runner: Runner) -> TrainingResult:
    hub = runner.message_hub
    best = hub.get_info('best_ckpt')
    histories = {
        key.removeprefix('val/'): np.asarray(history.data[0])
        for key, history in hub.log_scalars.items()
        if key.startswith('val/') and not key.endswith(('/time', '/data_time')) and key.count('/') > 1
    }
    indicator = (runner.cfg.default_hooks.get('checkpoint') or {}).get('save_best')
    position = int(np.nanargmax(histories[indicator])) if best and indicator in histories else -1
    metrics = {name: float(values[position]) for name, values in histories.items() if len(values)}
    return TrainingResult(Path(runner.work_dir), Path(best or hub.get_info('last_ckpt')), metrics)


def without_weights(name: str, action: str) -> UsageError:
    """Return the error of a model that has no weights."""
    return UsageError(
        f'{name} has no weights, so it can {action} nothing: train it with train(data=...), or name a checkpoint with '
        'weights=... (--weights)'
    )
