"""Official checkpoint files and their conversion to MMEngine checkpoints."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mmdefocus import __version__

from .families import CheckpointFamily, Kind, find_official_family
from .names import official_to_mmdefocus

WEIGHTS = ('model', 'model_ema')
# MMEngine's entry of meta with the names of the classes; in a file of the official layout, our own addition.
DATASET_META = 'dataset_meta'


class OfficialWeights(NamedTuple):
    """Weights in an official file.

    Attributes:
        family: Family that recognises them.
        kind: Kind of model that they belong to.
        state_dict: Tensors with official names.
        in_mmengine_file: True if the other entries of the file are those of MMEngine or MMCV, as in detection files.
    """

    family: CheckpointFamily
    kind: Kind
    state_dict: Mapping[str, Any]
    in_mmengine_file: bool


def find_official_weights(content: Any, weights: str = 'model') -> OfficialWeights | None:
    """Find the weights in an official file.

    Args:
        content: Content of a file (its weights are the entry ``model`` or ``state_dict``) or a state dict.
        weights: ``'model'`` for the plain weights, ``'model_ema'`` for their moving average.

    Returns:
        The weights, or None if the file is not an official one.

    Raises:
        ValueError: Unknown ``weights``, weights that the file does not have, or names that several families recognise.
    """
    if weights not in WEIGHTS:
        raise ValueError(f'weights must be one of {list(WEIGHTS)}, got {weights!r}')
    if not isinstance(content, Mapping):
        return None
    for entry in ('model', 'state_dict', None):
        state_dict = content if entry is None else content.get(entry)
        if not isinstance(state_dict, Mapping):
            continue
        family = find_official_family(state_dict)
        if family is not None and weights == 'model':
            kind = family.official_kind(state_dict)
            in_mmengine_file = entry == 'state_dict' and (kind == 'detection' or 'meta' in content)
            return OfficialWeights(family, kind, state_dict, in_mmengine_file)
        if family is not None:
            average = content.get(family.average_entry)
            if not isinstance(average, Mapping):
                raise ValueError(
                    f'there is no {family.average_entry!r} in this file, which only files of a classification training '
                    "have; convert the plain weights ('model') instead"
                )
            wrong = [name for name in average if not isinstance(name, str)]
            if wrong:
                raise ValueError(
                    f'the keys of {family.average_entry!r} in this file must be names of tensors, got {wrong[0]!r}; '
                    "convert the plain weights ('model') instead"
                )
            return OfficialWeights(family, family.official_kind(average), average, False)
    return None


def is_official_checkpoint(checkpoint: Any) -> bool:
    """Return True if this is the content of an official file of a registered family."""
    return find_official_weights(checkpoint) is not None


def as_mmengine_checkpoint(content: Any, weights: str = 'model', strict: bool = True) -> Any:
    """Convert the content of an official file to an MMEngine checkpoint.

    Args:
        content: Content of a file.
        weights: As in :func:`find_official_weights`.
        strict: Raise if a key does not belong to the model. Else it is left out.

    Returns:
        A dict with ``state_dict`` and ``meta``. The state dict has our names and, in its metadata, what the family
        reads from the file; ``meta`` has the names of the classes if the file has them. Content that is not official
        is returned unchanged.

    Raises:
        ValueError: Keys that do not belong to the model, or entries that are not tensors.
    """
    official = find_official_weights(content, weights)
    if official is None:
        return content
    check_tensors(official.state_dict)
    state_dict = OrderedDict(official_to_mmdefocus(official.state_dict, strict, official.family.name))
    # mmdet's heads read the versions that are in the metadata.
    inherited = getattr(official.state_dict, '_metadata', None) if official.in_mmengine_file else None
    metadata = OrderedDict(inherited or {})
    own = official.family.read_metadata(content)
    if own:
        metadata['backbone'] = {**metadata.get('backbone', {}), **own}
    state_dict._metadata = metadata  # type: ignore[attr-defined]
    if official.in_mmengine_file:
        return {**content, 'state_dict': state_dict}
    meta = {'mmdefocus_version': __version__, 'official_weights': weights}
    if isinstance(content.get(DATASET_META), Mapping):
        meta[DATASET_META] = content[DATASET_META]
    return {'meta': meta, 'state_dict': state_dict}


def check_tensors(state_dict: Mapping[str, Any]) -> None:
    """Raise a ValueError if a state dict has values that are not tensors."""
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ValueError(f'expected tensors, got {key} of type {type(value).__name__}')
