"""What the name of a model stands for: a model of the zoo, a config, or a checkpoint of a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdefocus.datasets.prepared.source_data import Task
from mmdefocus.models.checkpoint import CheckpointError, is_official_checkpoint, read_checkpoint

from .errors import UsageError
from .runs.checkpoints import check_checkpoint, find_best_checkpoint
from .runs.config_checks import check_model
from .runs.config_file import check_mmcv_ops, load_config
from .runs.config_options import apply_options
from .saved_config import read_saved_config
from .zoo import find_zoo_model, zoo_names

_TASKS: dict[str, Task] = dict(mmdet='detection', mmpretrain='classification')
_CLASSES = dict(detection='Detector', classification='Classifier')


@dataclass(frozen=True)
class NamedModel:
    """A model that a user has named.

    Attributes:
        name: Short name, for folders and titles.
        task: ``detection`` or ``classification``.
        cfg: Config that fits the weights.
        training_cfg: Config for a training on own data.
        weights: Path or address of the weights; None without any.
        start: Path or address of the weights from which a training on own data starts; None leaves that to its config.
        in_zoo: It is a model of the zoo, whose config names no data of the user.
    """

    name: str
    task: Task
    cfg: Config
    training_cfg: Config
    weights: str | None
    start: str | None = None
    in_zoo: bool = False


def find_named_model(
    model: str | Path, task: Task | None = None, cfg_options: Mapping[str, Any] | None = None
) -> NamedModel:
    """Find out what a model is.

    Args:
        model: Name in the zoo, path of a config (``.py``), path of a checkpoint of a training (``.pth``), or work
            directory of a training, which stands for its best checkpoint.
        task: Required task; None for the one of a config or checkpoint, and for a detector of the zoo.
        cfg_options: Dotted keys and values to set in the config.

    Raises:
        UsageError: There is no such model, it is for another task, its config has a mistake, or a checkpoint has no
            config.
    """
    text, path = str(model), Path(model).expanduser()
    if path.is_dir() and text not in zoo_names():
        path = find_best_checkpoint(path)
    if path.suffix == '.py':
        cfg = load_config(path, cfg_options)
        found = NamedModel(path.stem, find_task(cfg, text), cfg, cfg, None)
    elif path.suffix == '.pth':
        cfg = read_checkpoint_config(path)
        apply_options(cfg, cfg_options or {})
        found = NamedModel(path.absolute().parent.name, find_task(cfg, text), cfg, cfg, str(path), str(path))
    else:
        found = _zoo_model(text, task or 'detection', cfg_options)
    if task is not None and found.task != task:
        raise UsageError(
            f'{text} is for {found.task}: use {_CLASSES[found.task]}, or give {_CLASSES[task]} a model for {task}'
        )
    check_model(found.cfg)
    return found


def read_checkpoint_config(path: Path) -> Config:
    """Return the config that a training has saved in its checkpoint.

    Raises:
        UsageError: The file does not exist, is damaged, or has no config.
    """
    check_checkpoint(str(path))
    check_mmcv_ops()
    try:
        content = read_checkpoint(path, map_location='meta', checksums=False)
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    meta = content.get('meta') if isinstance(content, Mapping) else None
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        kind = 'is an official file and' if is_official_checkpoint(content) else 'is of no training of MMEngine and'
        raise UsageError(
            f"'{path}' {kind} has no config; give the config or the name in the zoo as the model, and this file as "
            'its weights, such as `mmdefocus predict defocus_mamba_base --weights FILE.pth` or '
            "Detector('defocus_mamba_base', weights='FILE.pth')"
        )
    try:
        return read_saved_config(text, str(path))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _zoo_model(name: str, task: Task, cfg_options: Mapping[str, Any] | None) -> NamedModel:
    entry = find_zoo_model(name, task)
    training_cfg = load_config(entry.config_file, cfg_options)
    if entry.published is None:
        return NamedModel(entry.name, task, training_cfg, training_cfg, None, in_zoo=True)
    from .model_index import find_model  # imports MMPreTrain

    config, weights = find_model(entry.published)
    # The configs of classifiers name the published weights themselves.
    start = weights if task == 'detection' else None
    return NamedModel(entry.name, task, load_config(config, cfg_options), training_cfg, weights, start, True)


def find_task(cfg: Config, source: str) -> Task:
    """Return the task of a config.

    Args:
        cfg: Config.
        source: What has it, for the message.

    Raises:
        UsageError: It is for no task of this package.
    """
    scope = cfg.get('default_scope')
    if scope not in _TASKS:
        raise UsageError(
            f"{source}: default_scope must be 'mmdet' (a detector) or 'mmpretrain' (a classifier), got {scope!r}; set "
            'it in the config'
        )
    return _TASKS[scope]
