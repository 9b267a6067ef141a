"""Official checkpoint files as the MMEngine checkpoints that they would be here."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmdefocus import __version__

from .key_mapping import is_official, official_to_mmdefocus
from .resolution import METADATA_KEY, Resolution

WEIGHTS = ('model', 'model_ema')


def official_state_dict(checkpoint: Any, weights: str = 'model') -> Mapping[str, Any] | None:
    """The state dict in an official file.

    Args:
        checkpoint: Content of a file: of a classification training, of a detection training, or a state dict alone.
        weights: ``'model'`` or ``'model_ema'``, the moving average that only classification files have.

    Returns:
        A state dict with official names, or None if the file is not an official one.

    Raises:
        ValueError: Unknown ``weights``, or weights that the file does not have.
    """
    if weights not in WEIGHTS:
        raise ValueError(f'weights must be one of {list(WEIGHTS)}, got {weights!r}')
    if not isinstance(checkpoint, Mapping):
        return None
    candidates = (checkpoint.get('model'), checkpoint.get('state_dict'), checkpoint)
    official = next((value for value in candidates if isinstance(value, Mapping) and is_official(value)), None)
    if official is None or weights == 'model':
        return official
    if not isinstance(checkpoint.get(weights), Mapping):
        raise ValueError(f'there is no {weights!r} in this file, which only files of a classification training have')
    return checkpoint[weights]


def is_official_checkpoint(checkpoint: Any) -> bool:
    """Whether this is the content of an official file."""
    return official_state_dict(checkpoint) is not None


def as_mmengine_checkpoint(checkpoint: Any, weights: str = 'model', strict: bool = True) -> Any:
    """Turn the content of an official file into an MMEngine checkpoint.

    Args:
        checkpoint: Content of a file.
        weights: As in :func:`official_state_dict`.
        strict: Raise if a key does not belong to the model. Else it is left out.

    Returns:
        A dict with ``state_dict`` and ``meta``, whose state dict has our names and, from classification files, the
        image size and scales of the training in its metadata. A checkpoint that is not an official one comes back as
        it is.

    Raises:
        ValueError: Keys that do not belong to the model, or entries that are no tensors.
    """
    official = official_state_dict(checkpoint, weights)
    if official is None:
        return checkpoint
    check_tensors(official)
    renamed = official_to_mmdefocus(official, strict)
    state_dict = OrderedDict(renamed)
    if official is checkpoint.get('state_dict'):
        # mmdet's heads read the versions that are in the metadata.
        state_dict._metadata = getattr(official, '_metadata', OrderedDict())  # type: ignore[attr-defined]
        return {**checkpoint, 'state_dict': state_dict}
    state_dict._metadata = OrderedDict()  # type: ignore[attr-defined]
    resolution = Resolution.from_official_config(checkpoint.get('config'))
    if resolution is not None:
        state_dict._metadata['backbone'] = {METADATA_KEY: resolution.to_metadata()}  # type: ignore[attr-defined]
    return {'meta': {'mmdefocus_version': __version__, 'official_weights': weights}, 'state_dict': state_dict}


def check_tensors(state_dict: Mapping[str, Any]) -> None:
    """Raise a ValueError if a state dict has anything else than tensors."""
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ValueError(f'expected tensors, got {key} of type {type(value).__name__}')
