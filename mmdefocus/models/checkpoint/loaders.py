"""Safe loaders for MMEngine's ``CheckpointLoader`` that also accept official files.

Importing this module replaces MMEngine's loaders of files and of http(s) addresses. ``load_from``, ``resume``,
``init_cfg`` and the inferencers of MMEngine, MMDetection and MMPreTrain then use them. MMEngine's own loaders fall back
to unpickling anything when ``weights_only`` fails. Model zoos (``open-mmlab://``, ``torchvision://``) and cloud storage
keep MMEngine's loaders.
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
from .official import as_mmengine_checkpoint, find_official_weights
from .reading import read_checkpoint


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint file; an official one is converted to an MMEngine checkpoint.

    Args:
        filename: Path; ``~`` is the home directory.
        map_location: As in ``torch.load``; None means the CPU, whatever device the file was written on.

    Returns:
        The content of the file, see :func:`as_mmengine_checkpoint`.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file cannot be used; the message gives the reason.
    """
    content = read_checkpoint(os.path.expanduser(filename), 'cpu' if map_location is None else map_location)
    try:
        official = find_official_weights(content)
        checkpoint = as_mmengine_checkpoint(content)
    except ValueError as error:
        raise CheckpointError(f'{filename}: {error}') from error
    if official is not None:
        family = official.family
        has_average = family.average_entry in content
        note = f'; it also has {family.average_entry!r}, see docs/checkpoints.md' if has_average else ''
        print_log(
            f'{filename} is an official {family.title} checkpoint; converted to the names of mmdefocus{note}', 'current'
        )
    if isinstance(checkpoint, dict):
        _copy_backbone_metadata(checkpoint.get('state_dict'))
    return checkpoint


def _copy_backbone_metadata(state_dict: Any) -> None:
    """Copy the backbone's metadata to the root, from where a backbone that loads a whole model gets its own."""
    metadata = getattr(state_dict, '_metadata', {})
    own = {key: value for key, value in metadata.get('backbone', {}).items() if key != 'version'}
    if own:
        metadata.setdefault('', {}).update(own)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint, once, and read it as :func:`load_from_local` does.

    The file is cached in the directory of ``torch.hub``, in ``checkpoints/`` and a folder per address. A file that
    cannot be read is removed.

    Args:
        filename: Address.
        map_location: As in :func:`load_from_local`.

    Returns:
        The content of the file.

    Raises:
        CheckpointError: The address gives no usable checkpoint. The message explains how to use a local file instead.
    """
    path = cached_path(filename)
    if is_main_process():
        _download(filename, path)
    barrier()
    _download(filename, path)  # on the other nodes
    try:
        return load_from_local(str(path), map_location)
    except CheckpointError:
        path.unlink(missing_ok=True)  # the address may give another file later
        raise


def cached_path(url: str) -> Path:
    """Return the path of the cached checkpoint of an address, which is unique to the address."""
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir(), 'checkpoints', folder, os.path.basename(urlparse(url).path) or 'checkpoint.pth')


def _download(url: str, path: Path) -> None:
    if path.exists():
        try:
            check_container(path)
            return
        except CheckpointError as error:
            print_log(f'{error}: downloading {url} again', 'current', logging.WARNING)
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path))
        check_container(path)
    except (OSError, HTTPException, CheckpointError) as error:
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f'{url} could not be downloaded ({type(error).__name__}: {error}). Download it on a machine with network '
            'access and give the path of the file instead of the address (for the initial weights of a config: '
            '--cfg-options model.backbone.init_cfg.checkpoint=FILE, or load_from=FILE)'
        ) from error
