"""Weights that a backbone starts from: ``init_cfg=dict(type='Pretrained', checkpoint=...)``.

MMEngine's own initialiser loads what fits and logs the rest, so that a file of another network leaves random weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader

from ..checkpoint.container import CheckpointError
from ..checkpoint.fit import load_and_describe_misfit

InitCfg = Mapping[str, Any]


def split_pretrained(init_cfg: InitCfg | Sequence[InitCfg] | None) -> tuple[list[InitCfg], list[InitCfg]]:
    """Separate what sets values by a rule from what loads a checkpoint."""
    parts = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
    pretrained = [part for part in parts if part['type'] in ('Pretrained', PretrainedInit)]
    return [part for part in parts if part not in pretrained], pretrained


def load_pretrained(backbone: BaseModule, init_cfg: InitCfg) -> None:
    """Load a checkpoint of the backbone, or of a model with it, that must have every tensor of it.

    Args:
        backbone: One that finds its part in the state dict of a whole model.
        init_cfg: As for MMEngine's ``PretrainedInit``: ``checkpoint`` and, optionally, ``prefix`` and
            ``map_location``.

    Raises:
        CheckpointError: The file cannot be used, or tensors are missing, left over or of another shape.
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
    misfit = load_and_describe_misfit(backbone, state_dict)
    if misfit is not None:
        raise CheckpointError(
            f'{name} is no checkpoint of this {type(backbone).__name__}: {misfit}. Name a file of this network in the '
            'init_cfg of the backbone, or init_cfg=None to start from random weights'
        )
