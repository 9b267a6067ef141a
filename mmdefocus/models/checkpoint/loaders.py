"""MMEngine's loading of checkpoints, made safe and open to official files.

Importing this module replaces the loaders of files and of http(s) addresses in MMEngine's ``CheckpointLoader``. All
that MMEngine, MMDetection and MMPreTrain load goes through it: ``load_from``, ``resume``, ``init_cfg`` and inferencers.
MMEngine's own ones unpickle anything once ``weights_only`` has failed. Names of its model zoos (``open-mmlab://``,
``torchvision://``) and cloud storage keep MMEngine's loaders.
"""

import hashlib
import logging
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from .container import CheckpointError, check_container
from .official import as_mmengine_checkpoint
from .reading import read_checkpoint
from .resolution import METADATA_KEY


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint file; an official one as an MMEngine checkpoint.

    Args:
        filename: Path; ``~`` is the home directory.
        map_location: As in ``torch.load``; None is the CPU, whatever device the file was written on.

    Returns:
        The content of the file, see :func:`as_mmengine_checkpoint`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be used; the message says why.
    """
    content = read_checkpoint(os.path.expanduser(filename), 'cpu' if map_location is None else map_location)
    try:
        checkpoint = as_mmengine_checkpoint(content)
    except ValueError as error:
        raise CheckpointError(f'{filename}: {error}') from error
    if checkpoint is not content:
        note = "; it also has 'model_ema', see docs/checkpoints.md" if 'model_ema' in content else ''
        print_log(f'{filename} is an official checkpoint and was renamed to the names of mmdefocus{note}', 'current')
    if isinstance(checkpoint, dict):
        _tell_bare_backbone(checkpoint.get('state_dict'))
    return checkpoint


def _tell_bare_backbone(state_dict: Any) -> None:
    """Where a backbone loads the checkpoint of a whole model, it reads the metadata of the whole model."""
    metadata = getattr(state_dict, '_metadata', {})
    if METADATA_KEY in metadata.get('backbone', {}):
        metadata.setdefault('', {})[METADATA_KEY] = metadata['backbone'][METADATA_KEY]


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint, once, and read it as :func:`load_from_local` does.

    The file stays in the directory of ``torch.hub``, below ``checkpoints/``, in a folder of its own for each address.
    One that cannot be read does not stay there.

    Raises:
        CheckpointError: The address gives no usable checkpoint. The message says how to give a local file instead.
    """
    path = cached_path(filename)
    if is_main_process():
        _download(filename, path)
    barrier()
    _download(filename, path)  # on other machines
    try:
        return load_from_local(str(path), map_location)
    except CheckpointError:
        path.unlink(missing_ok=True)  # the address may give another file later
        raise


def cached_path(url: str) -> Path:
    """Where the checkpoint of an address is kept; different addresses have different places."""
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir(), 'checkpoints', folder, os.path.basename(urlparse(url).path) or 'checkpoint.pth')


def _download(url: str, path: Path) -> None:
    if path.exists():
        try:
            check_container(path)
            return
        except CheckpointError as error:
            print_log(f'{error}: downloading {url} once more', 'current', logging.WARNING)
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path))
        check_container(path)
    except (OSError, HTTPException, CheckpointError) as error:
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f'{url} could not be downloaded ({type(error).__name__}: {error}). Download it where there is a network, '
            'and give the path of the file in place of the address (for the weights that a config starts from: '
            '--cfg-options model.backbone.init_cfg.checkpoint=FILE, or load_from=FILE)'
        ) from error
