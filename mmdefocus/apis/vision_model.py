"""What classifiers and detectors of users share: training, evaluation and prediction by a few words."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from mmdefocus.datasets.prepared.source_data import PreparedData, Task

from .errors import UsageError
from .named_model import find_named_model
from .own_data import TrainingOptions, own_data_config
from .own_positions import check_positions
from .runs.config_options import apply_options
from .training_run import (
    TrainingResult,
    check_new_work_dir,
    run_test,
    run_training,
    with_test_set,
    without_weights,
    write_config,
)

if TYPE_CHECKING:
    from .latency import Latency
    from .prediction import Predictor
    from .results import ClassificationResult, DetectionResult


class VisionModel:
    """A model of users. Use :class:`~mmdefocus.Detector` and :class:`~mmdefocus.Classifier`.

    Args:
        model: Name in the zoo (``mmdefocus models`` lists them), path of a config (``.py``), or path of a checkpoint of
            a training (``.pth``), which has its config.
        weights: Checkpoint to load: path or address. By default that of ``model``, or the published one of the zoo.
        device: Device of PyTorch, such as ``'cpu'`` or ``'cuda:1'``; by default a GPU if there is one.
        cfg_options: Dotted keys and values to set in the config, such as ``{'model.num_queries': 50}``.

    Attributes:
        task: ``detection`` or ``classification``.
        name: Short name of the model.
        cfg: Config that fits the weights.
        weights: Path or address of the checkpoint; None without one.
        work_dir: Folder of the training; None before one.

    Raises:
        UsageError: There is no such model, or it is for the other task.
    """

    task: ClassVar[Task]

    def __init__(
        self,
        model: str | Path,
        weights: str | Path | None = None,
        *,
        device: str | None = None,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> None:
        found = find_named_model(model, self.task, cfg_options)
        self.name, self.cfg, self._training_cfg = found.name, found.cfg, found.training_cfg
        self.weights: str | None = str(weights) if weights is not None else found.weights
        self.work_dir: Path | None = None
        self.device = device
        self._cfg_options = dict(cfg_options or {})
        # Checkpoint, its time, mixed precision, network.
        self._predictor: tuple[str, int | None, bool, Predictor] | None = None
        self._start = str(weights) if weights is not None else found.start
        self._in_zoo = found.in_zoo

    def config(
        self,
        data: str | Path | None = None,
        *,
        epochs: int | None = None,
        batch_size: int | Literal['auto'] | None = None,
        lr: float | None = None,
        image_size: int | None = None,
        val_fraction: float = 0.2,
        seed: int | None = None,
        work_dir: str | Path | None = None,
        workers: int | None = None,
    ) -> Config:
        """Return the complete config of a training; ``tools/train.py`` trains it with the same result as :meth:`train`.

        The data are prepared in ``<work_dir>/data``. The arguments are those of :meth:`train`.
        """
        if data is None and self._in_zoo:
            raise UsageError(f'{self.name} of the zoo needs data: data=FOLDER (--data FOLDER)')
        folder = self._work_dir_of(data, work_dir)
        prepared = None if data is None else self._prepare(data, folder, val_fraction, seed or 0)
        options = TrainingOptions(
            epochs=epochs,
            batch_size=None if batch_size == 'auto' else batch_size,
            lr=lr,
            image_size=image_size,
            seed=seed,
            workers=workers,
            work_dir=str(folder),
            load_from=self._start,
        )
        cfg = self._complete(prepared, options)
        if batch_size == 'auto':
            found = _try_batch(cfg, 'auto')
            cfg = self._complete(prepared, replace(options, batch_size=found))
        return cfg

    def train(
        self,
        data: str | Path | None = None,
        *,
        epochs: int | None = None,
        batch_size: int | Literal['auto'] | None = None,
        lr: float | None = None,
        image_size: int | None = None,
        val_fraction: float = 0.2,
        seed: int | None = None,
        work_dir: str | Path | None = None,
        workers: int | None = None,
        resume: bool = False,
        overfit: int | None = None,
        dry_run: bool = True,
        amp: bool = False,
        launcher: str = 'none',
    ) -> TrainingResult:
        """Train, and keep the best checkpoint as :attr:`weights`.

        Args:
            data: Folder or file of the data: COCO, YOLO, Pascal VOC, or a folder per class. None: those of the config.
            epochs: Passes over the training images. None: as in the config. The schedule is scaled.
            batch_size: Images per step and process. ``'auto'``: as many as the memory allows. None: as in the config.
            lr: Learning rate. None: that of the config, scaled by the number of images per step.
            image_size: Longest side of the images in pixels (detection), or their side (classification).
            val_fraction: Part of the training images for validation, if the data have no split for it.
            seed: Seed of the split and of the training; None: 0, or that of the config without ``data``.
            work_dir: Folder for data, config, checkpoints and logs; default: ``work_dirs/<model>_<data>``.
            workers: Processes that load images.
            resume: Continue the training in ``work_dir``, exactly.
            overfit: Train on this number of images only, to tell mistakes of the data from those of the model. Passes
                and batch are then those of :func:`mmdefocus.apis.overfit.overfit`.
            dry_run: Measure the memory of the largest batch before the training.
            amp: Train in mixed precision, on a CPU in bfloat16 if it has instructions for that.
            launcher: Launcher of several processes: ``pytorch`` (torchrun), ``slurm`` or ``mpi``.

        Returns:
            Folder, best checkpoint and its metrics. For ``overfit``, those of the trial and its verdict.

        Raises:
            UsageError: The data or an option do not fit, or the folder has another training.
            DataError: The data have mistakes.
        """
        self._check_device()
        if batch_size == 'auto' and launcher != 'none':
            raise UsageError("batch_size='auto' measures one process; give the images per process of a launcher")
        if overfit is not None:
            given = dict(epochs=epochs, batch_size=batch_size, resume=resume, amp=amp)
            unused = [name for name, value in given.items() if value] + ['launcher'] * (launcher != 'none')
            if unused:
                raise UsageError(f'overfit has passes, batch and precision of its own; leave out {", ".join(unused)}')
        folder = self._work_dir_of(data, work_dir)
        check_new_work_dir(folder, resume)
        cfg = self.config(
            data,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            image_size=image_size,
            val_fraction=val_fraction,
            seed=seed,
            work_dir=folder,
            workers=workers,
        )
        if overfit is not None:
            return self._overfit(cfg, overfit, lr, seed or 0)
        if dry_run and batch_size != 'auto' and not resume and launcher == 'none':
            _try_batch(cfg, cfg.train_dataloader.batch_size)
        result = run_training(write_config(cfg, folder), resume, amp, launcher)
        self.work_dir, self.weights, self.cfg = result.work_dir, str(result.checkpoint), cfg
        return result

    def val(self, data: str | Path | None = None, split: str = 'val', amp: bool = False) -> dict[str, float]:
        """Evaluate the weights.

        Args:
            data: Data as for :meth:`train`; None: those of the training, or of the config.
            split: ``train``, ``val`` or ``test``.
            amp: Compute in mixed precision.

        Returns:
            Metrics by name, as the evaluator of the config gives them.

        Raises:
            UsageError: The model has no weights, or the data do not have the split.
        """
        self._check_device()
        weights = self._require_weights('evaluate')
        cfg = copy.deepcopy(self.cfg)
        folder = self.work_dir or self._work_dir_of(data, None)
        if data is not None:
            prepared = self._prepare(data, folder / 'test', 0.2, 0)
            if split not in prepared.splits:
                raise UsageError(f'{data} has the splits {", ".join(prepared.splits)}, got {split!r}; name one of them')
            cfg = own_data_config(cfg, prepared, TrainingOptions())
            cfg.load_from = None
        elif split not in ('train', 'val', 'test'):
            raise UsageError(f"split must be 'train', 'val' or 'test', got {split!r}; name one of them")
        cfg.work_dir = str(folder)
        return run_test(with_test_set(cfg, split), weights, amp)

    def predict(
        self, images: Any, threshold: float = 0.3, batch_size: int = 1, amp: bool = False
    ) -> 'list[DetectionResult] | list[ClassificationResult]':
        """Predict the contents of images; see :func:`mmdefocus.apis.prediction.predict_images`.

        The network is kept for the next call, as long as checkpoint and precision are the same.
        """
        from .prediction import Predictor, check_weights

        weights = check_weights(self.weights, self.name)
        written = None if '://' in weights else Path(weights).stat().st_mtime_ns
        if self._predictor is None or self._predictor[:3] != (weights, written, amp):
            predictor = Predictor(self.cfg, weights, self.task, self.device, amp=amp)
            self._predictor = (weights, written, amp, predictor)
        return list(self._predictor[3](images, threshold, batch_size, progress=True))

    def report(self, out: str | Path | None = None, latency: bool = True) -> Path:
        """Write the report page of the training; see :func:`mmdefocus.apis.training_report.write_report`."""
        from .training_report import write_report

        self._require_weights('report')
        folder = self.work_dir or Path(str(self.weights)).parent
        return write_report(folder, out, checkpoint=self.weights, device=self.device, latency=latency)

    def benchmark(self, **options: Any) -> 'list[Latency]':
        """Measure the latency on this machine; see :func:`mmdefocus.apis.latency.measure_latency`."""
        from .latency import measure_latency

        return measure_latency(self.cfg, self.weights, self.device, **options)

    def _overfit(self, cfg: Config, images: int, lr: float | None, seed: int) -> TrainingResult:
        from .overfit import overfit

        found = overfit(cfg, images, lr=lr, seed=seed)
        return TrainingResult(found.work_dir, None, {found.metric: found.score}, found.passed, found.verdict)

    def _complete(self, prepared: PreparedData | None, options: TrainingOptions) -> Config:
        cfg = own_data_config(self._training_cfg, prepared, options)
        apply_options(cfg, self._cfg_options)  # what the user sets has the last word
        if prepared is not None and prepared.task == 'detection':
            check_positions(cfg, prepared)
        return cfg

    def _prepare(self, data: str | Path, folder: Path, val_fraction: float, seed: int) -> PreparedData:
        from mmdefocus.datasets.prepared import prepare_data

        return prepare_data(data, folder / 'data', val_fraction, seed, self.task)

    def _work_dir_of(self, data: str | Path | None, work_dir: str | Path | None) -> Path:
        if work_dir is not None:
            return Path(work_dir)
        if data is None:
            return Path(self._training_cfg.get('work_dir') or Path('work_dirs') / self.name)
        return Path('work_dirs') / f'{self.name}_{_stem(Path(data))}'

    def _require_weights(self, action: str) -> str:
        if self.weights is None:
            raise without_weights(self.name, action)
        return self.weights

    def _check_device(self) -> None:
        """Select the device; MMEngine takes the current GPU, or the CPU where there is none."""
        if self.device is None:
            return
        device = torch.device(self.device)
        if device.type == 'cuda' and not torch.cuda.is_available():
            raise UsageError(f'device {self.device!r} needs a GPU, and PyTorch sees none; leave it out')
        if device.type == 'cpu' and torch.cuda.is_available():
            raise UsageError(
                'training and evaluation use the GPU that PyTorch sees; for a run on the CPU, start the program with '
                'CUDA_VISIBLE_DEVICES= (empty)'
            )
        if device.index is not None:
            torch.cuda.set_device(device)


def _try_batch(cfg: Config, requested: int | Literal['auto']) -> int:
    """Return the batch size that was found by training steps, or tried."""
    from .batch_size import find_batch_size

    print_log('Measuring the memory of the largest batch, in a process of its own', logger='current')
    return find_batch_size(cfg, requested).batch_size


def _stem(path: Path) -> str:
    path = path.absolute()
    return path.stem if path.is_file() else path.name
