"""Conversion of official files to MMEngine checkpoints and back."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ..imagenet21k import NUM_CLASSES_21K, imagenet1k_indices
from .families import find_family
from .families.registry import known_titles, show_names
from .names import mmdefocus_to_official, name_map_to_official
from .official import DATASET_META, as_mmengine_checkpoint, check_tensors, find_official_weights

TARGETS = ('cls', 'det')
HEADS = ('keep', 'drop', '21k-to-1k')


def convert_official(
    content: Any, weights: str = 'model', to: str | None = None, head: str | None = None, strict: bool = True
) -> dict[str, Any]:
    """Convert the content of an official file to an MMEngine checkpoint with weights only.

    Args:
        content: What :func:`read_checkpoint` returns.
        weights: ``'model'`` for the plain weights, ``'model_ema'`` for the moving average, if the file has one,
            whatever the entries are called.
        to: ``'cls'`` or ``'det'``; by default the kind of the file. ``'det'`` makes the backbone of a detector from a
            classifier.
        head: Treatment of a classifier's heads: ``'keep'``, ``'drop'``, or ``'21k-to-1k'``, which reduces them from the
            classes of ImageNet-21k to those of ImageNet-1k. By default ``'keep'`` for a classifier, ``'drop'`` for a
            detector.
        strict: Raise if a key does not belong to the model. Else it is left out.

    Returns:
        A checkpoint with the entries ``meta`` and ``state_dict``, without the state of the training.

    Raises:
        ValueError: Not an official file, options that do not apply to this file, or keys that do not belong to the
            model.
    """
    if to is not None and to not in TARGETS:
        raise ValueError(f'to must be one of {list(TARGETS)} or None, got {to!r}')
    if head is not None and head not in HEADS:
        raise ValueError(f'head must be one of {list(HEADS)} or None, got {head!r}')
    official = find_official_weights(content, weights)
    if official is None:
        raise ValueError(
            f'expected an official file of {known_titles()}, got one with {_show_content(content)}; name an official '
            'file (a checkpoint of mmdefocus needs no conversion)'
        )
    is_detector = official.kind == 'detection'
    if is_detector and to == 'cls':
        raise ValueError("a detection file has no classification heads; convert it with to='det'")
    if (is_detector or to == 'det') and head not in (None, 'drop'):
        raise ValueError(f"head={head!r} is for classifiers; a detector's checkpoint has no classification heads")
    checkpoint = as_mmengine_checkpoint(content, weights, strict)
    state_dict = checkpoint['state_dict']
    meta = dict(_meta_of(checkpoint))
    if not is_detector:
        _check_names(state_dict, meta, official.family.classifiers)
    if to == 'det' or head == 'drop':
        for key in [key for key in state_dict if key.startswith('head.')]:
            del state_dict[key]
        if not is_detector:  # its names are those of the heads
            meta.pop(DATASET_META, None)
    elif head == '21k-to-1k':
        _reduce_to_imagenet1k(state_dict, official.family.classifiers)
        if _names(meta) is not None:
            meta[DATASET_META] = {'classes': tuple(_names(meta)[index] for index in imagenet1k_indices())}
    return {'meta': meta, 'state_dict': state_dict}


def convert_to_official(content: Any) -> dict[str, Any]:
    """Convert one of our checkpoints to the layout of the official files, with plain data only.

    Args:
        content: What :func:`read_checkpoint` returns, or a state dict.

    Returns:
        From classifiers the family's entry with the weights (``model`` or ``state_dict``), what it writes of the
        backbone's metadata, such as the image size, and ``dataset_meta`` with the names of the classes, if there are
        any; from detectors ``meta`` and ``state_dict``.

    Raises:
        ValueError: Not one of our checkpoints, or keys that do not belong to the model.
    """
    state_dict = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(state_dict, Mapping) or (family := find_family(state_dict)) is None:
        raise ValueError(
            f'expected a checkpoint of mmdefocus that has an official layout ({known_titles()}), got one with '
            f'{_show_content(content)}; name a checkpoint that mmdefocus has written or converted'
        )
    check_tensors(state_dict)
    _, kind = name_map_to_official(state_dict)
    official = OrderedDict(mmdefocus_to_official(state_dict, kind))
    if kind == 'detection':
        return {'meta': _meta_of(content), 'state_dict': official}
    metadata = getattr(state_dict, '_metadata', {}).get('backbone', {})
    meta = _meta_of(content)
    _check_names(state_dict, meta, family.classifiers)
    named = {} if _names(meta) is None else {DATASET_META: meta[DATASET_META]}
    return {family.weights_entry: official, **family.write_metadata(metadata), **named}


def _meta_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = content.get('meta', {})
    if not isinstance(meta, Mapping):
        raise ValueError(
            f"the entry 'meta' of the checkpoint must be a dictionary, got {type(meta).__name__}; remove the entry, or "
            'name another file'
        )
    return meta


def _names(meta: Mapping[str, Any]) -> Any:
    """Return the names of the classes, None if there are none."""
    dataset_meta = meta.get(DATASET_META)
    return dataset_meta.get('classes') if isinstance(dataset_meta, Mapping) else None


def _check_names(state_dict: Mapping[str, Tensor], meta: Mapping[str, Any], classifiers: Iterable[str]) -> None:
    """Raise a ValueError if the number of names is not that of the classes of a classifier."""
    names = _names(meta)
    for name in classifiers if names is not None else ():
        key = f'{_last_layer(state_dict, name)}.weight'
        rows = len(state_dict[key]) if key in state_dict else len(names)
        if rows != len(names):
            raise ValueError(
                f'expected a name for each of the {rows} classes of {key}, got {len(names)} in meta.{DATASET_META}; '
                'correct or remove its classes'
            )


def _reduce_to_imagenet1k(state_dict: dict[str, Tensor], classifiers: Iterable[str]) -> None:
    """Keep the rows of ImageNet-1k in the last layer of every classifier."""
    indices = imagenet1k_indices()
    for name in classifiers:
        last = _last_layer(state_dict, name)
        for key in (f'{last}.weight', f'{last}.bias'):
            rows = len(state_dict[key]) if key in state_dict else 0
            if rows != NUM_CLASSES_21K:
                raise ValueError(
                    f'21k-to-1k expects heads of {NUM_CLASSES_21K} classes, got {key} with {rows} rows; '
                    'keep or drop the heads'
                )
            state_dict[key] = state_dict[key][indices]


def _last_layer(names: Iterable[str], classifier: str) -> str:
    """Return the name of the last layer of a classifier, which is one layer or a ``Sequential``."""
    found = (re.fullmatch(rf'{re.escape(classifier)}\.(\d+)\.weight', name) for name in names)
    numbers = [int(match.group(1)) for match in found if match]
    return f'{classifier}.{max(numbers)}' if numbers else classifier


def _show_content(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f'a {type(content).__name__}'
    state_dict = content.get('state_dict', content.get('model', content))
    return show_names(state_dict if isinstance(state_dict, Mapping) else content)
