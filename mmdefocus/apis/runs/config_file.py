"""Config files, with the changes that the command line makes to them."""

import importlib
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.openmmlab import import_quietly

from .config_options import apply_options
from .suggestions import similar_files


def load_config(
    path: str | Path, cfg_options: Mapping[str, Any] | None = None, work_dir: str | None = None, launcher: str = 'none'
) -> Config:
    """Read a config file and apply the options of the command line.

    Args:
        path: Config file.
        cfg_options: Dotted keys and new values, see :func:`~mmdefocus.apis.runs.config_options.apply_options`.
        work_dir: Overrides ``work_dir`` of the config; without either it is ``work_dirs/<name of the config>``.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The complete config.

    Raises:
        UsageError: The file is missing or no config, a key is unknown or without effect, ``custom_hooks`` is empty in
            place of named hooks, or MMCV has no compiled operators.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"'{path}' is a directory; name the config file in it")
    if not path.is_file():
        similar = similar_files(path, path.suffix) or '; expected the path of a config file: correct it'
        raise UsageError(f"config file '{path}' does not exist{similar}")
    check_mmcv_ops()
    cfg = read_config(path)
    apply_options(cfg, cfg_options or {})
    _check_custom_hooks(cfg)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    _check_work_dir(cfg.work_dir)
    return cfg


def _check_work_dir(work_dir: Any) -> None:
    if not isinstance(work_dir, (str, Path)):
        raise UsageError(f'work_dir must be a path, got {work_dir!r}; name a directory with --work-dir')
    try:
        file = next(
            (path for path in (Path(work_dir), *Path(work_dir).parents) if path.exists() and not path.is_dir()), None
        )
    except OSError as error:
        raise UsageError(
            f'the work directory {reprlib.repr(work_dir)} cannot be made: {error.strerror}; name another directory '
            'with --work-dir'
        ) from error
    if file is not None:
        raise UsageError(
            f"the work directory '{work_dir}' cannot be made: '{file}' is a file; name another directory with "
            '--work-dir'
        )


def _check_custom_hooks(cfg: Config) -> None:
    """Raise ``UsageError`` for an empty list that is meant to remove hooks of a recipe, which have names now."""
    names = [name for name in ('ema', 'drop_path') if (cfg.get('default_hooks') or {}).get(name)]
    if names and cfg.get('custom_hooks') == []:
        remedy = ' and '.join(f'default_hooks.{name}=None' for name in names)
        raise UsageError(f'custom_hooks=[] does not remove the hooks of the recipe; set {remedy}, or omit custom_hooks')


def read_config(path: Path) -> Config:
    """Read a config file.

    Raises:
        UsageError: The file is no config, or has a mistake.
    """
    import_quietly('mmdet.datasets', 'mmpretrain.datasets')
    try:
        return Config.fromfile(path)
    except Exception as error:  # A config is a program and can fail in any way.
        cause: BaseException = error
        # MMEngine's error of custom_imports lists sys.path instead of the reason.
        while isinstance(cause, ImportError) and isinstance(cause.__context__, ImportError):
            cause = cause.__context__
        reason = ' '.join(str(cause).split()).replace('<unknown>, ', '')
        if isinstance(cause, RecursionError):
            reason = 'maximum recursion depth exceeded'  # the rest says where, which has no meaning here
        # MMEngine lists the settings that several bases have as a set, in any order.
        reason = re.sub(
            r'(?<=Duplicate keys: )\{(.*?)\}', lambda found: ', '.join(sorted(found[1].split(', '))), reason
        )
        raise UsageError(
            f"config file '{path}' cannot be read ({type(cause).__name__}: {reason}); {_remedy(cause)}"
        ) from error


def _remedy(error: BaseException) -> str:
    remedies: dict[type[BaseException], str] = {
        UnicodeError: 'expected a text in UTF-8: name a config file, or save it in UTF-8',
        SyntaxError: 'expected settings in the syntax of Python: correct this line of the file, or of its _base_',
        NameError: 'expected a variable of the file: define it, or write _base_.NAME for one of the base',
        FileNotFoundError: 'expected the path of an existing config: correct _base_',
        AssertionError: "expected a config of OpenMMLab's packages, such as mmdet::_base_/...: correct _base_",
        RecursionError: 'expected bases that do not lead back to the file: remove the circle from _base_',
        ImportError: 'expected a module of this environment: install it, or add its folder to PYTHONPATH',
    }
    return next(
        (remedy for kind, remedy in remedies.items() if isinstance(error, kind)),
        'expected a config of MMEngine: correct the file, or its _base_',
    )


def check_mmcv_ops() -> None:
    """Check that MMCV's compiled operators can be imported.

    Raises:
        UsageError: They cannot; the message gives the reason and the installation command.
    """
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise UsageError(
            f'MMCV has no usable compiled operators ({error}), which detectors need. Install MMCV with operators '
            f'built for this PyTorch ({torch.__version__}): run "make setup", or '
            '"MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv"'
        ) from error
