"""Options of the training and the test tool, applied to a config."""

import copy
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdefocus.apis.errors import UsageError
from mmdefocus.engine.amp_optim_wrapper import DefocusAmpOptimWrapper

from .checkpoints import check_checkpoint, find_newest_checkpoint
from .config_checks import check_settings
from .folders import make_folder


def apply_train_options(cfg: Config, amp: bool = False, auto_scale_lr: bool = False, resume: str | None = None) -> None:
    """Apply the training tool's options to ``cfg`` in place.

    Args:
        cfg: Config from :func:`~mmdefocus.apis.runs.config_file.load_config`.
        amp: Train in mixed precision; on a GPU with the dtype and loss scale of the config where it sets them, on a
            CPU in bfloat16 (:class:`~mmdefocus.engine.DefocusAmpOptimWrapper`).
        auto_scale_lr: Scale the learning rate by total batch size over the config's ``base_batch_size``.
        resume: Checkpoint to resume, or ``'auto'`` for the newest one of the work directory, if there is one.

    Raises:
        UsageError: This config or machine does not support an option.
    """
    if cfg.get('train_dataloader') is None or cfg.get('train_cfg') is None:
        raise UsageError(
            'the config has no train_dataloader and train_cfg, so there is nothing to train; inherit a config '
            'that has them with _base_'
        )
    check_settings(cfg)
    if amp:
        cfg.optim_wrapper.type = DefocusAmpOptimWrapper.__name__
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
        # MMEngine would trust the file last_checkpoint, and ignore `load_from` when there is nothing to resume.
        cfg.resume = newest is not None
        cfg.load_from = cfg.get('load_from') if newest is None else str(newest)
    elif resume is not None:
        cfg.resume = True
        cfg.load_from = check_checkpoint(resume, to_resume=True)
    for checkpoint in (cfg.get('load_from'), *_pretrained(cfg.get('model'))):
        if checkpoint is not None:
            check_checkpoint(checkpoint)


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
        cfg: Config from :func:`~mmdefocus.apis.runs.config_file.load_config`.
        checkpoint: Checkpoint to test: a file, or a URL that MMEngine can open.
        show: Show every picture in a window.
        show_dir: Directory for pictures with predicted and true boxes or labels.
        wait_time: Seconds for which a window stays open.
        tta: Use test-time augmentation: ``tta_model`` and ``tta_pipeline`` of the config, or else flipped images.

    Raises:
        UsageError: This config does not support an option.
    """
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise UsageError(
            'the config has no test_dataloader and test_evaluator, so there is nothing to test; inherit a config that '
            'has them with _base_'
        )
    check_settings(cfg)
    cfg.load_from = check_checkpoint(checkpoint)
    cfg.resume = False
    # The runner saves its config under the name of the file and would replace that of the training.
    cfg.work_dir = str(Path(cfg.work_dir) / 'test')
    if wait_time < 0:
        raise UsageError(f'--wait-time must be at least 0 seconds, got {wait_time}; correct it')
    if show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & os.environ.keys():
        raise UsageError('--show needs a display, and this machine has none; write the pictures with --show-dir')
    if show or show_dir:
        if show_dir:
            make_folder('--show-dir', show_dir)
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


def _checkpoint_directory(cfg: Config) -> Path:
    """Return the directory to which the checkpoint hook writes."""
    out_dir = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')
    if out_dir is None or out_dir == cfg.work_dir:
        return Path(cfg.work_dir)
    if '://' in out_dir:
        raise UsageError(f"--resume finds no checkpoints in '{out_dir}'; name one: --resume {out_dir}/...")
    return Path(out_dir) / os.path.basename(cfg.work_dir.rstrip(os.sep))


def _pretrained(node: Any) -> Iterator[str]:
    """Yield the checkpoints that initialise parts of a model."""
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
