"""From a config file and command-line options to an MMEngine runner, for detection and classification alike.

The ``default_scope`` of a config says which it is: ``mmdet`` or ``mmpretrain``.
"""

import argparse
import copy
import difflib
import gc
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmdefocus.apis.config_options import UsageError, apply_options, read_config
from mmdefocus.apis.num_classes import resolve_num_classes
from mmdefocus.apis.resume import find_newest_checkpoint
from mmdefocus.datasets.errors import DataError
from mmdefocus.engine import CheckpointCheckHook, GroundTruthCheckHook
from mmdefocus.engine.checkpoint_check_hook import check_weights_are_there
from mmdefocus.engine.errors import SetupError
from mmdefocus.engine.resume_check import missing_for_resuming
from mmdefocus.models.checkpoint import CheckpointError, is_official_checkpoint, read_checkpoint

# Their messages are for the user, who needs no traceback.
REFUSALS = (UsageError, CheckpointError, SetupError, DataError)


def load_config(
    path: str | Path, cfg_options: Mapping[str, Any] | None = None, work_dir: str | None = None, launcher: str = 'none'
) -> Config:
    """Read a config file and apply what the command line changes in it.

    Args:
        path: Config file.
        cfg_options: Dotted keys and new values, see :func:`~mmdefocus.apis.config_options.apply_options`.
        work_dir: Overrides the config's own; without either it is ``work_dirs/<name of the config>``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The complete config.

    Raises:
        UsageError: If the file is missing or no config, a key is unknown or would have no effect, or MMCV has no
            compiled ops.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"'{path}' is a directory; name the config file in it")
    if not path.is_file():
        raise UsageError(f"config file '{path}' does not exist{_suggest(path.name, path.parent, path.suffix)}")
    check_mmcv_ops()
    cfg = read_config(path)
    apply_options(cfg, cfg_options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    for folder in (Path(cfg.work_dir), *Path(cfg.work_dir).parents):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"the work directory '{cfg.work_dir}' cannot be made: '{folder}' is a file")
    return cfg


def check_mmcv_ops() -> None:
    """Make sure that MMCV's compiled operators can be imported.

    Raises:
        UsageError: If they cannot; the message says why and how to install them.
    """
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise UsageError(
            f'MMCV has no usable compiled operators ({error}), which detectors need. Install MMCV with operators '
            f'built for this PyTorch ({torch.__version__}): run "make setup", or '
            '"MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv"'
        ) from error


def apply_train_options(cfg: Config, amp: bool = False, auto_scale_lr: bool = False, resume: str | None = None) -> None:
    """Apply the training tool's options to ``cfg`` in place.

    Args:
        cfg: Config from :func:`load_config`.
        amp: Train in mixed precision; dtype and loss scale of the config are kept where it names them.
        auto_scale_lr: Scale the learning rate by total batch size over the config's ``base_batch_size``.
        resume: ``'auto'`` for the newest checkpoint of the work directory, if there is one, or a checkpoint.

    Raises:
        UsageError: If an option cannot be had with this config or machine.
    """
    if cfg.get('train_dataloader') is None or cfg.get('train_cfg') is None:
        raise UsageError('the config has no train_dataloader and train_cfg, so there is nothing to train')
    for length in ('max_epochs', 'max_iters'):
        value = cfg.train_cfg.get(length, 1)
        if not isinstance(value, int | float) or value < 1 or value % 1:
            raise UsageError(f'train_cfg.{length} must be a whole number of at least 1, got {value!r}')
    if amp:
        if not torch.cuda.is_available():
            raise UsageError('--amp needs a GPU and PyTorch sees none; leave it out to train in float32')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UsageError(
                '--auto-scale-lr needs the batch size that the learning rate was chosen for; write '
                'auto_scale_lr = dict(base_batch_size=...) into the config'
            )
        cfg.auto_scale_lr.enable = True
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    if resume == 'auto':
        newest = find_newest_checkpoint(_checkpoint_directory(cfg))
        # MMEngine would trust the file last_checkpoint, and forget `load_from` where there is nothing to resume yet.
        cfg.resume = newest is not None
        cfg.load_from = cfg.get('load_from') if newest is None else str(newest)
    elif resume is not None:
        cfg.resume = True
        cfg.load_from = _usable_checkpoint(resume, to_resume=True)
    for checkpoint in (cfg.get('load_from'), *_pretrained(cfg.get('model'))):
        if checkpoint is not None:
            _usable_checkpoint(checkpoint)


def apply_test_options(
    cfg: Config,
    checkpoint: str,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
) -> None:
    """Apply the test tool's options to ``cfg`` in place. Logs go to the folder ``test`` of the work directory.

    Args:
        cfg: Config from :func:`load_config`.
        checkpoint: Checkpoint to test: a file, or a URL that MMEngine can open.
        show: Show every picture in a window.
        show_dir: Directory that receives every picture, with predicted and true boxes or labels.
        wait_time: Seconds that a window stays open.
        tta: Test-time augmentation with ``tta_model`` and ``tta_pipeline`` of the config, else with flipped images.

    Raises:
        UsageError: If an option cannot be had with this config.
    """
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise UsageError('the config has no test_dataloader and test_evaluator, so there is nothing to test')
    cfg.load_from = _usable_checkpoint(checkpoint)
    cfg.resume = False
    # The runner saves its config under the file's name; beside the training's it would replace that one.
    cfg.work_dir = str(Path(cfg.work_dir) / 'test')
    if show or show_dir:
        if tta and cfg.get('default_scope') == 'mmpretrain':
            raise UsageError('MMPreTrain draws no pictures of augmented images; give --tta and --show-dir in two runs')
        hook = (cfg.get('default_hooks') or {}).get('visualization')
        if hook is None:
            raise UsageError(
                '--show and --show-dir need a visualization hook; write default_hooks = '
                "dict(visualization=dict(type='DetVisualizationHook')) into the config (classification: "
                "'VisualizationHook')"
            )
        directory = os.path.abspath(show_dir) if show_dir else None
        if cfg.get('default_scope') == 'mmpretrain':
            hook.update(enable=True, show=show, wait_time=wait_time, out_dir=directory, interval=1)
        else:
            hook.update(draw=True, show=show, wait_time=wait_time, test_out_dir=directory)
    if tta:
        _use_tta(cfg)


def build_runner(cfg: Config, strict: bool = True, compare_classes: bool = True) -> Runner:
    """Build the runner, on the distributed backend and in the precision that this machine has.

    Whatever hooks the config has, the runner gets those that refuse what does not belong together:
    :class:`~mmdefocus.engine.CheckpointCheckHook` and, for detectors,
    :class:`~mmdefocus.engine.GroundTruthCheckHook`. One that the config has is kept.

    Args:
        cfg: Config from :func:`load_config`.
        strict: Whether a checkpoint to be tested must fit the model.
        compare_classes: Whether a checkpoint to be tested must be of the classes of the data set.

    Returns:
        A runner of the config's ``runner_type``, MMEngine's own by default.

    Raises:
        UsageError: If ``launcher`` asks for processes that were not started or GPUs that are not there, or if the
            classes of the training set are to be counted and cannot.
    """
    _prepare_launcher(cfg)
    if not torch.cuda.is_available():
        _train_in_float32(cfg)
    if cfg.get('default_scope') == 'mmpretrain':
        _complete_dataloaders(cfg)
    try:
        classes = resolve_num_classes(cfg)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if classes is not None:
        runner.logger.info(f"num_classes='auto': the training set has {len(classes)} classes")
    _scale_lr_by_accumulation(runner)
    hooks: list[Hook] = [CheckpointCheckHook(strict, compare_classes)]
    if cfg.get('default_scope') == 'mmdet':
        hooks.append(GroundTruthCheckHook())
    for hook in hooks:
        if not any(isinstance(present, type(hook)) for present in runner.hooks):
            runner.register_hook(hook)
    return runner


def dump_predictions(runner: Runner, out: str) -> None:
    """Have ``runner.test()`` write all predictions to the pickle file ``out``.

    Raises:
        UsageError: If ``out`` does not end in ``.pkl`` or ``.pickle``.
    """
    if not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f"--out takes a file that ends in .pkl or .pickle, got '{out}'")
    if runner.cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults as Dump
    else:
        from mmengine.evaluator import DumpResults as Dump
    runner.test_evaluator.metrics.append(Dump(out_file_path=out))


def run_tool(parser: argparse.ArgumentParser, action: Callable[[], None]) -> None:
    """Run what a command-line tool does and leave its process group.

    What is refused ends the program with status 2 and one message; other errors keep their traceback.

    Args:
        parser: Of the tool.
        action: All that the tool does with its arguments; runners are gone when it returns.
    """
    message = None
    try:
        action()
    except REFUSALS as error:
        message = str(error)  # The error itself would keep the runner.
    leave_process_group()
    if message is not None:
        parser.exit(2, f'error: {message}\n')


def leave_process_group() -> None:
    """End the distributed part of a program, where it has one. The runner must be deleted first.

    Gloo's threads let go of the tensors of a finished collective whenever they come to it; if the interpreter has begun
    to end by then, the process aborts. Leaving the group waits for these threads, once no parallel model refers to it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def _suggest(name: str, directory: Path, suffix: str) -> str:
    names = [entry.name for entry in directory.glob(f'*{suffix}')] if directory.is_dir() else []
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.7)
    if close:
        return f'; did you mean {", ".join(str(directory / match) for match in close)}?'
    return '' if directory.is_dir() else f': there is no directory {directory} here ({Path.cwd()})'


def _usable_checkpoint(checkpoint: str, to_resume: bool = False) -> str:
    if '://' in checkpoint:
        return checkpoint
    path = Path(checkpoint).expanduser()
    if not path.exists():
        raise UsageError(f"checkpoint '{checkpoint}' does not exist{_suggest(path.name, path.parent, '.pth')}")
    try:
        content = read_checkpoint(path, map_location='meta')  # everything but the numbers
        check_weights_are_there(content, str(path))
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    if to_resume and is_official_checkpoint(content):
        raise UsageError(
            f"'{checkpoint}' is an official file, whose training cannot be resumed here; to start from its weights, "
            f'leave out --resume and set load_from={checkpoint} with --cfg-options'
        )
    missing = ' and '.join(missing_for_resuming(content)) if to_resume else ''
    if missing:
        raise UsageError(
            f"'{checkpoint}' has no {missing}, so no training can go on from it; to start from its weights, leave out "
            f'--resume and set load_from={checkpoint} with --cfg-options'
        )
    return checkpoint


def _checkpoint_directory(cfg: Config) -> Path:
    """Where the checkpoint hook writes."""
    out_dir = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')
    if out_dir is None or out_dir == cfg.work_dir:
        return Path(cfg.work_dir)
    if '://' in out_dir:
        raise UsageError(f"--resume finds no checkpoints in '{out_dir}'; name one: --resume {out_dir}/...")
    return Path(out_dir) / os.path.basename(cfg.work_dir.rstrip(os.sep))


def _pretrained(node: Any) -> Iterator[str]:
    """Checkpoints that initialise parts of a model."""
    if isinstance(node, Mapping):
        if node.get('type') == 'Pretrained' and 'checkpoint' in node:
            yield node['checkpoint']
        for child in node.values():
            yield from _pretrained(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _pretrained(child)


def _use_tta(cfg: Config) -> None:
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    classify = cfg.get('default_scope') == 'mmpretrain'
    if 'tta_model' not in cfg:
        cfg.tta_model = (
            dict(type='mmpretrain.AverageClsScoreTTA')
            if classify
            else dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
        )
    if 'tta_pipeline' not in cfg:
        *steps, pack = copy.deepcopy(dataset.pipeline)
        if not classify:
            keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
            pack['meta_keys'] = keys
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def _prepare_launcher(cfg: Config) -> None:
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    rank_variable = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_LOCAL_RANK')[launcher]
    if rank_variable not in os.environ:
        started_by = dict(pytorch='tools/dist_train.sh or torchrun', slurm='tools/slurm_train.sh or srun', mpi='mpirun')
        raise UsageError(
            f'--launcher {launcher} expects to be started by {started_by[launcher]}, but {rank_variable} is not set'
        )
    if torch.cuda.is_available():
        local_rank = int(os.environ.get('LOCAL_RANK', 0))
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f'process {local_rank} on this machine has no GPU of its own: PyTorch sees '
                f'{torch.cuda.device_count()}; start at most that many processes'
            )
        return
    if launcher != 'pytorch':
        raise UsageError(
            f'--launcher {launcher} needs GPUs and PyTorch sees none; use --launcher pytorch (gloo) instead'
        )
    # MMEngine would select a GPU before joining the group; a group that exists is taken as it is.
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    env_cfg = cfg.get('env_cfg') or {}
    cfg.env_cfg = dict(env_cfg, dist_cfg=dict(env_cfg.get('dist_cfg') or {}, backend='gloo'))
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)


def _train_in_float32(cfg: Config) -> None:
    """Replace MMEngine's mixed precision, which refuses to be built without a GPU."""
    wrapper = cfg.get('optim_wrapper')
    if wrapper is not None and wrapper.get('type') == 'AmpOptimWrapper':
        print_log('Without a GPU the training is in float32, not in mixed precision', level=logging.WARNING)
        wrapper.type = 'OptimWrapper'
        for setting in ('dtype', 'loss_scale', 'use_fsdp'):
            wrapper.pop(setting, None)


def _scale_lr_by_accumulation(runner: Runner) -> None:
    """Let the automatic scaling of the learning rate count all images of a step, where MMEngine counts a batch."""
    batches = (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    scaling = runner.auto_scale_lr
    if batches > 1 and scaling and scaling.get('enable'):
        # The runner's copy: in the config, which is saved, it would be scaled again at the next start.
        runner.auto_scale_lr = dict(scaling, base_batch_size=scaling['base_batch_size'] / batches)


def _complete_dataloaders(cfg: Config) -> None:
    """Fill in the dataloader settings that MMPreTrain's configs leave to its own tools."""
    for split in ('train', 'val', 'test'):
        dataloader = cfg.get(f'{split}_dataloader')
        if dataloader is not None:
            dataloader.setdefault('collate_fn', dict(type='default_collate'))
            dataloader.setdefault('pin_memory', torch.cuda.is_available())
            dataloader.setdefault('persistent_workers', dataloader.get('num_workers', 0) > 0)
