"""MMEngine's runner for detection and classification, built from a config.

``default_scope`` of the config selects the task: ``mmdet`` or ``mmpretrain``.
"""

import itertools
import shlex
import sys
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import DistSamplerSeedHook, EarlyStoppingHook, Hook
from mmengine.registry import RUNNERS, VISUALIZERS
from mmengine.runner import Runner

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.num_classes import resolve_num_classes
from mmdefocus.datasets.concat import DefocusConcatDataset
from mmdefocus.engine.amp_optim_wrapper import choose_precision, describe_precision
from mmdefocus.engine.checkpoint_check_hook import DefocusCheckpointCheckHook
from mmdefocus.engine.class_count_hook import DefocusClassCountHook
from mmdefocus.engine.epoch_seed_hook import DefocusEpochSeedHook
from mmdefocus.engine.stop_signal_hook import DefocusStopSignalHook
from mmdefocus.engine.train_loops import with_resumable_loop

from .folders import make_folder
from .launcher import prepare_launcher


def build_runner(cfg: Config, strict: bool = True, compare_classes: bool = True) -> Runner:
    """Build the runner for the distributed backend and the precision that this machine supports.

    The runner always gets the hooks that compare config, data and checkpoint,
    :class:`~mmdefocus.engine.DefocusCheckpointCheckHook`, :class:`~mmdefocus.engine.DefocusClassCountHook` and, for
    detectors, :class:`~mmdefocus.engine.DefocusGroundTruthCheckHook`, and
    :class:`~mmdefocus.engine.DefocusStopSignalHook`, which saves when the training is told to stop. Hooks of these
    types in the config take precedence. Training loops and sampler hook of MMEngine are replaced by those of this
    package, with which a resumed training is exact.

    Args:
        cfg: Config from :func:`~mmdefocus.apis.runs.config_file.load_config`. ``default_hooks.NAME = None`` removes
            the hook of this name.
        strict: Require a tested checkpoint to fit the model.
        compare_classes: Require a tested checkpoint to have the classes of the data set.

    Returns:
        A runner of the config's ``runner_type``, by default MMEngine's own.

    Raises:
        UsageError: ``launcher`` did not start this process or needs more GPUs than there are, or the classes of the
            training set cannot be counted.
    """
    make_folder('--work-dir', cfg.work_dir)
    prepare_launcher(cfg)
    warning = choose_precision(cfg.get('optim_wrapper') or {})
    if cfg.get('default_scope') == 'mmpretrain':
        _complete_dataloaders(cfg)
    for split in ('train', 'val', 'test'):
        _compare_parts(cfg.get(f'{split}_dataloader'))
    _remove_hooks(cfg)
    _name_visualizer(cfg)
    try:
        classes = resolve_num_classes(cfg)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if warning is not None:
        runner.logger.warning(warning)
    if classes is not None:
        runner.logger.info(f"num_classes='auto': the training set has {len(classes)} classes")
    _scale_lr_by_accumulation(runner)
    _make_resumable(runner)
    hooks: list[Hook] = [
        DefocusCheckpointCheckHook(strict, compare_classes),
        DefocusClassCountHook(),
        DefocusStopSignalHook(_resume_command(cfg)),
    ]
    if cfg.get('default_scope') == 'mmdet':
        from mmdefocus.engine.ground_truth_check_hook import DefocusGroundTruthCheckHook  # needs mmdet

        hooks.append(DefocusGroundTruthCheckHook())
    for hook in hooks:
        if not any(isinstance(present, type(hook)) for present in runner.hooks):
            runner.register_hook(hook)
    return runner


def train(cfg: Config) -> Runner:
    """Log the precision and the ``notes`` of a config, a list of sentences, and train it.

    Args:
        cfg: As for :func:`build_runner`.

    Returns:
        The runner after the training.
    """
    runner = build_runner(cfg)
    runner.logger.info(f'Precision: {describe_precision(cfg.optim_wrapper)}')
    notes = cfg.get('notes')
    for note in notes if isinstance(notes, list | tuple) else []:
        runner.logger.info(note)
    runner.train()
    return runner


def _name_visualizer(cfg: Config) -> None:
    """Rename the visualizer if this process has one of this name: MMEngine would take that one and its folder."""
    settings = cfg.get('visualizer') or {}
    name = settings.get('name')
    with VISUALIZERS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(settings['type']) if name else None
    if kind is not None and kind.check_instance_created(name):
        names = (f'{name}_{number}' for number in itertools.count(2))
        settings['name'] = next(other for other in names if not kind.check_instance_created(other))


def _make_resumable(runner: Runner) -> None:
    """Replace MMEngine's training loop and sampler hook by those with which a resumed training is exact.

    Replace the runner's: the config is saved, and other programs should be able to use it.
    """
    runner._train_loop = with_resumable_loop(runner._train_loop)
    for hook in [hook for hook in runner.hooks if type(hook) is DistSamplerSeedHook]:
        runner.hooks.remove(hook)
        runner.register_hook(DefocusEpochSeedHook())
    for hook in [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]:
        runner.hooks.remove(hook)
        runner.register_hook(hook, 'LOW')  # before the checkpoints, which hold its state


def dump_predictions(runner: Runner, out: str) -> None:
    """Make ``runner.test()`` write all predictions to the pickle file ``out``.

    Raises:
        UsageError: ``out`` does not end in ``.pkl`` or ``.pickle``.
    """
    if not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f"--out takes a file that ends in .pkl or .pickle, got '{out}'; rename it")
    if runner.cfg.get('default_scope') == 'mmdet':
        from mmdefocus.evaluation.dump_det_results import DefocusDumpDetResults as Dump  # needs mmdet
    else:
        from mmdefocus.evaluation.dump_results import DefocusDumpResults as Dump
    evaluator = runner.test_evaluator
    metric = Dump(out_file_path=out)
    metric.dataset_meta = evaluator.dataset_meta
    evaluator.metrics.append(metric)


def _resume_command(cfg: Config) -> str:
    if cfg.get('launcher', 'none') != 'none':
        return 'the same command with --resume'  # This process does not know what launched it.
    words = [word for word in sys.argv if word.partition('=')[0] != '--resume']
    if cfg.get('resume') and cfg.get('load_from') in words:
        words.remove(cfg.load_from)
    return shlex.join(['python', *words, '--resume'])


def _complete_dataloaders(cfg: Config) -> None:
    """Add the dataloader settings that MMPreTrain's configs leave to its own tools."""
    for split in ('train', 'val', 'test'):
        dataloader = cfg.get(f'{split}_dataloader')
        if dataloader is not None:
            dataloader.setdefault('collate_fn', dict(type='default_collate'))
            dataloader.setdefault('pin_memory', torch.cuda.is_available())
            dataloader.setdefault('persistent_workers', dataloader.get('num_workers', 0) > 0)


def _compare_parts(node: Any) -> None:
    """Make concatenated data sets compare the classes of their parts."""
    if isinstance(node, dict):
        kind = node.get('type')
        if (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2] == 'ConcatDataset':
            node['type'] = DefocusConcatDataset.__name__
        for child in node.values():
            _compare_parts(child)
    elif isinstance(node, list | tuple):
        for child in node:
            _compare_parts(child)


def _remove_hooks(cfg: Config) -> None:
    """Remove the hooks that are None; MMEngine does so for its own default hooks only."""
    hooks = cfg.get('default_hooks') or {}
    own = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
    for name in [name for name, hook in hooks.items() if hook is None and name not in own]:
        del hooks[name]


def _scale_lr_by_accumulation(runner: Runner) -> None:
    """Make the automatic learning rate count all images of an optimiser step; MMEngine counts those of one batch."""
    batches = (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    scaling = runner.auto_scale_lr
    if batches > 1 and scaling and scaling.get('enable'):
        # Change the runner's copy: the config is saved and would be scaled again at the next start.
        runner.auto_scale_lr = dict(scaling, base_batch_size=scaling['base_batch_size'] / batches)
