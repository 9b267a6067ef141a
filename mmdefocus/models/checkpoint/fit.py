"""Comparison of the tensors of a checkpoint with those of a model."""

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

_SHOWN = 3
_SIZE_MISMATCH = re.compile(r'size mismatch for (\S+): .*?torch\.Size\((.*?)\).*torch\.Size\((.*?)\)', re.DOTALL)


def load_and_describe_misfit(
    model: nn.Module, checkpoint: Mapping[str, Any], optional: Collection[str] = ()
) -> str | None:
    """Load the tensors of a checkpoint that fit a model, and describe the others.

    The comparison happens during loading, so names that the modules' loading hooks convert fit. As in MMEngine, a
    prefix ``module.`` of the names is removed, ``num_batches_tracked`` may be missing, and wrappers for parallel
    training and test-time augmentation are unwrapped. All processes of a distributed run get the same result.

    Args:
        model: Model, whose values are overwritten. It may have loaded the checkpoint before.
        checkpoint: Content of a checkpoint file, with the entry ``state_dict`` or a state dict itself.
        optional: Names of tensors of the model that may be missing.

    Returns:
        Counts and first names of the tensors that are missing, unexpected or of a different shape; None if all fit.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.get_submodule('module')
    tensors = checkpoint.get('state_dict', checkpoint)
    state_dict = OrderedDict((key.removeprefix('module.'), value) for key, value in tensors.items())
    state_dict._metadata = getattr(tensors, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    missing: list[str] = []
    unexpected: list[str] = []
    notes: list[str] = []
    misshapen: list[str] = []

    def record(_: nn.Module, keys: Any) -> None:
        missing.extend(key for key in keys.missing_keys if 'num_batches_tracked' not in key and key not in optional)
        unexpected.extend(keys.unexpected_keys)

    handle = model.register_load_state_dict_post_hook(record)
    try:
        model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        # With strict=False these are the tensors that could not be copied, one per line.
        for line in str(error).split('\n\t')[1:]:
            shapes = _shapes(line)
            notes += [line] if shapes is None else []
            misshapen += [] if shapes is None else [shapes]
        if not notes and not misshapen:
            raise
    finally:
        handle.remove()
    kinds = (('missing', missing), ('unexpected', unexpected), ('of a different shape', misshapen))
    counts = [f'{len(names)} {kind} ({_some(names)})' for kind, names in kinds if names]
    return '; '.join(notes + counts) or None


def _shapes(line: str) -> str | None:
    found = _SIZE_MISMATCH.search(line)
    if found is None:
        return None
    name, in_file, in_model = found.groups()
    return f'{name}: {in_file} in the file, {in_model} in the model'


def _some(names: Sequence[str]) -> str:
    shown = ', '.join(names[:_SHOWN])
    return f'{shown}, and {len(names) - _SHOWN} more' if len(names) > _SHOWN else shown
