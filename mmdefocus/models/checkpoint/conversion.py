"""From official files to MMEngine checkpoints and back."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .key_mapping import mmdefocus_to_official, official_kind
from .official import as_mmengine_checkpoint, check_tensors, official_state_dict
from .resolution import Resolution

TARGETS = ('cls', 'det')
HEADS = ('keep', 'drop', '21k-to-1k')
NUM_CLASSES_21K = 21841


def convert_official(
    content: Any, weights: str = 'model', to: str | None = None, head: str | None = None, strict: bool = True
) -> dict[str, Any]:
    """Convert the content of an official file.

    Args:
        content: What :func:`read_checkpoint` returns.
        weights: ``'model'``, or ``'model_ema'``, the moving average that classification files have besides.
        to: ``'cls'`` or ``'det'``; by default what the file is. A classifier becomes the backbone of a detector.
        head: What happens to a classifier's heads: ``'keep'``, ``'drop'``, or ``'21k-to-1k'``, which reduces both to
            the classes of ImageNet-1k. By default they are kept in a classifier and dropped for a detector.
        strict: Raise if a key does not belong to the model. Else it is left out.

    Returns:
        A checkpoint with the entries ``meta`` and ``state_dict``. What a training needs to be resumed is left out.

    Raises:
        ValueError: Not an official file, a choice that this file does not allow, or keys that do not belong to the
            model.
    """
    if to is not None and to not in TARGETS:
        raise ValueError(f'to must be one of {list(TARGETS)} or None, got {to!r}')
    if head is not None and head not in HEADS:
        raise ValueError(f'head must be one of {list(HEADS)} or None, got {head!r}')
    official = official_state_dict(content, weights)
    if official is None:
        raise ValueError(f'expected an official De-focus Mamba file, got one with {_described(content)}')
    is_detector = official_kind(official) == 'detection'
    if is_detector and to == 'cls':
        raise ValueError("a detection file has no classification heads; convert it with to='det'")
    if (is_detector or to == 'det') and head not in (None, 'drop'):
        raise ValueError(f"head={head!r} is for classifiers; a detector's checkpoint has no classification heads")
    checkpoint = as_mmengine_checkpoint(content, weights, strict)
    state_dict = checkpoint['state_dict']
    if to == 'det' or head == 'drop':
        for key in [key for key in state_dict if key.startswith('head.')]:
            del state_dict[key]
    elif head == '21k-to-1k':
        _reduce_heads(state_dict)
    return {'meta': checkpoint.get('meta', {}), 'state_dict': state_dict}


def convert_to_official(content: Any) -> dict[str, Any]:
    """Convert a checkpoint of ours to the layout of the official files, with plain data only.

    Args:
        content: What :func:`read_checkpoint` returns, or a state dict.

    Returns:
        ``model`` and, where the checkpoint tells the image size, what of ``config`` says so, from classifiers;
        ``meta`` and ``state_dict`` from detectors.

    Raises:
        ValueError: Not one of our checkpoints, or keys that do not belong to the model.
    """
    state_dict = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(state_dict, Mapping) or not any(str(key).startswith('backbone.layers.') for key in state_dict):
        raise ValueError(f'expected a checkpoint of mmdefocus (backbone.layers.*), got one with {_described(content)}')
    check_tensors(state_dict)
    official = OrderedDict(mmdefocus_to_official(state_dict))
    if official_kind(official) == 'detection':
        return {'meta': content.get('meta', {}), 'state_dict': official}
    metadata = getattr(state_dict, '_metadata', {}).get('backbone', {})
    resolution = Resolution.from_metadata(metadata)
    if resolution is None or resolution.is_detector:
        return {'model': official}
    return {'model': official, 'config': resolution.to_official_config()}


def _reduce_heads(state_dict: dict[str, Tensor]) -> None:
    from mmdefocus.datasets.imagenet21k import imagenet1k_indices

    indices = imagenet1k_indices()
    for head in ('head.fc', 'head.aux_fc'):
        last = f'{head}.2' if f'{head}.2.weight' in state_dict else head
        for key in (f'{last}.weight', f'{last}.bias'):
            rows = len(state_dict[key]) if key in state_dict else 0
            if rows != NUM_CLASSES_21K:
                raise ValueError(f'21k-to-1k expects heads of {NUM_CLASSES_21K} classes, got {key} with {rows} rows')
            state_dict[key] = state_dict[key][indices]


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f'a {type(content).__name__}'
    state_dict = content.get('state_dict', content.get('model', content))
    keys = list(state_dict) if isinstance(state_dict, Mapping) else list(content)
    return f'the keys {", ".join(map(str, keys[:3]))}, ...' if keys else 'no keys'
