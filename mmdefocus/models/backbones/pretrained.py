"""Loading of pretrained weights: ``init_cfg=dict(type='Pretrained', checkpoint=...)``.

MMEngine's own initialiser loads the tensors that fit and logs the others, so that a checkpoint of another network
leaves random weights. Here, such a checkpoint raises an error.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader

from ..checkpoint.container import CheckpointError
from ..checkpoint.fit import load_and_describe_misfit

if TYPE_CHECKING:
    from .vision_backbone import VisionBackbone

InitCfg = Mapping[str, Any]


def split_pretrained(init_cfg: InitCfg | Sequence[InitCfg] | None) -> tuple[list[InitCfg], list[InitCfg]]:
    """Separate rules for initial values from checkpoints to load; return both lists in this order."""
    parts = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
    pretrained = [part for part in parts if part['type'] in ('Pretrained', PretrainedInit)]
    return [part for part in parts if part not in pretrained], pretrained


def load_pretrained(backbone: 'VisionBackbone', init_cfg: InitCfg) -> None:
    """Load a checkpoint that contains every tensor of a backbone, except those that it calls optional.

    Args:
        backbone: Backbone whose load hooks find its tensors in the state dict of a whole model.
        init_cfg: As for MMEngine's ``PretrainedInit``: ``checkpoint`` and, optionally, ``prefix`` and
            ``map_location``.

    Raises:
        CheckpointError: If the file cannot be read, or if tensors are missing, unexpected or of a different shape.
    """
    initialiser = PretrainedInit(**{key: value for key, value in init_cfg.items() if key != 'type'})
    name = initialiser.checkpoint
    content = CheckpointLoader.load_checkpoint(name, map_location=initialiser.map_location, logger='current')
    state_dict = content.get('state_dict', content)
    prefix = (initialiser.prefix or '').rstrip('.')
    if prefix not in ('', 'backbone'):
        state_dict = {
            key.removeprefix(f'{prefix}.'): value for key, value in state_dict.items() if key.startswith(f'{prefix}.')
        }
    misfit = load_and_describe_misfit(backbone, state_dict, backbone.optional_names())
    if misfit is not None:
        raise CheckpointError(
            f'{name} is not a checkpoint of this {type(backbone).__name__}: {misfit}. Name a checkpoint of this '
            'network in the init_cfg of the backbone, or set init_cfg=None to start from random weights'
        )
