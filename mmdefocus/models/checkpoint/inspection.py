"""Comparison of a converted state dict with the network that it belongs to, and a report on the conversion."""

import re
from collections import Counter
from collections.abc import Mapping

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .families import family_of

# Lists of equal layers, whose tensors share a line of the report. Stages are lists of blocks.
_LAYERS = re.compile(
    r'\b(?:(?:stages|network)\.\d+(?:\.\d+)?|(?:layers|blocks|downsample_layers|down_projs|layer_norms|attns|mlps'
    r'|local_perception_units|norms|lateral_convs|fpn_convs|cls_branches|reg_branches)\.\d+)\b'
)


def expected_model(state_dict: Mapping[str, Tensor]) -> nn.ModuleDict:
    """Build the network that a state dict belongs to, with sizes inferred from its tensors.

    Args:
        state_dict: State dict with our names, of a classifier, a detector or a part of one with a backbone.

    Returns:
        ``backbone``, and ``head`` and ``neck`` where there is any key of them, on the ``meta`` device. Other parts
        of a detector are not built.

    Raises:
        ValueError: No family recognises the names, or a tensor that determines a size is missing.
    """
    configs = family_of(state_dict).model_config(state_dict)
    with torch.device('meta'):
        return nn.ModuleDict({part: MODELS.build(config) for part, config in configs.items()})


def missing_and_misshapen(state_dict: Mapping[str, Tensor], model: nn.ModuleDict) -> list[str]:
    """Return the keys of ``model`` that a state dict lacks or has in another shape, with the shape in the model."""
    return [
        f'{key} {tuple(value.shape)}'
        for key, value in model.state_dict().items()
        if key not in state_dict or state_dict[key].shape != value.shape
    ]


def report(state_dict: Mapping[str, Tensor], other_names: Mapping[str, str], link: str) -> str:
    """Describe a state dict with our names that was converted from or to an official one.

    Args:
        state_dict: State dict with our names.
        other_names: Official names by our names. It may include tensors that were dropped.
        link: Word between our name and the official one, such as ``'from'``.

    Returns:
        Lines on the network, its training, and the tensors: count, name, shape, dtype and official name. Layers with
        tensors of the same shape share a line, with ``*`` for their number.
    """
    buffers = {name for name, _ in expected_model(state_dict).named_buffers()}
    parameters = sum(value.numel() for name, value in state_dict.items() if name not in buffers)
    lines = [
        *family_of(state_dict).describe(state_dict),
        f'keys       {len(state_dict)} mapped, {parameters:,} parameters',
    ]
    rows = Counter(
        (
            _numberless(key),
            str(tuple(value.shape)),
            str(value.dtype).removeprefix('torch.'),
            _numberless(other_names[key]),
        )
        for key, value in state_dict.items()
    )
    lines += [
        f'{count:>6}  {key:<44} {shape:<16} {dtype:<8} {link} {other}'
        for (key, shape, dtype, other), count in rows.items()
    ]
    dropped = sorted({_numberless(other) for key, other in other_names.items() if key not in state_dict})
    return '\n'.join([*lines, f'dropped    {", ".join(dropped) or "none"}'])


def _numberless(key: str) -> str:
    return _LAYERS.sub(lambda found: re.sub(r'\d+', '*', found[0]), key)
