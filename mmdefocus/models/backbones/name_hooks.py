"""What all backbones do with the names of a state dict that they load.

They find their own tensors in that of a whole model, rename official keys and explain tensors that do not fit. As for
any PyTorch module, ``strict`` of the caller decides whether a state dict must be complete.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from ..checkpoint.families import BACKBONE, find_family
from ..checkpoint.names import backbone_state_dict, is_official, rename_official

if TYPE_CHECKING:
    from .vision_backbone import VisionBackbone


def translate_official_names(state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Rename official keys of a classifier in place, heads included, before MMPreTrain loads it."""
    own = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
    if is_official(own):
        for key in own:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in rename_official(own).items()})


def take_own_tensors(state_dict: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Replace what a state dict has under a prefix, official or ours, by the tensors of the backbone.

    Args:
        state_dict: State dict that is being loaded, changed in place.
        prefix: Name of the backbone in the model, with a full stop.

    Returns:
        The tensors under the backbone's own names, without the prefix.
    """
    own = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
    weights = backbone_state_dict(own)
    for key in own:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in weights.items()})
    return weights


def find_misfit(backbone: 'VisionBackbone', weights: Mapping[str, Tensor]) -> str | None:
    """Explain why weights are of another kind or size of network, by the first tensor of another shape.

    Args:
        backbone: Backbone that loads the weights.
        weights: Tensors with its own names.

    Returns:
        Message of an error, None if all shapes fit.
    """
    expected = backbone.state_dict()
    own_family, family = (find_family(BACKBONE + name for name in names) for names in (expected, weights))
    if own_family is not None and family is not None and family is not own_family:
        return (
            f'expected weights of {own_family.title}, got weights of {family.title}; give weights of '
            f'{own_family.title}, or build the backbone that these belong to'
        )
    wrong = next((name for name in expected if name in weights and expected[name].shape != weights[name].shape), None)
    if wrong is None:
        return None
    own, theirs = backbone.describe_size(expected), backbone.describe_size(weights)
    return (
        f'expected weights of {own}, got weights of {theirs if theirs != own else "the same width and depth"} whose '
        f'{wrong} is {tuple(weights[wrong].shape)}, not {tuple(expected[wrong].shape)}; give '
        f'{type(backbone).__name__} the sizes of the checkpoint'
    )
