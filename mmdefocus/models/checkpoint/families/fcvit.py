"""FCViT: the official files of its authors and our checkpoints.

Values are the same, only names differ:

==========================================  ====================================================
official                                    ours
==========================================  ====================================================
``patch_embed.proj.*``                      ``backbone.downsample_layers.0.projection.*``
``patch_embed.norm.*``                      ``backbone.downsample_layers.0.norm.*``
``network.1.proj.*``, 3, 5                  ``backbone.downsample_layers.1.projection.*``, 2, 3
``network.1.norm.*``, 3, 5                  ``backbone.downsample_layers.1.norm.*``, 2, 3
``network.0.B.*``, 2, 4, 6                  ``backbone.stages.0.B.*``, 1, 2, 3
``norm.*``, ``head.*`` of classifiers       ``backbone.norm3.*``, ``head.fc.*``
``norm0.*``, 2, 4, 6 of feature pyramids    ``backbone.norm0.*``, 1, 2, 3
==========================================  ====================================================

Official detection files have the prefix ``backbone.`` and the names of MMDetection for all other parts.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from .family import BACKBONE, DETECTOR_PARTS, CheckpointFamily, Kind
from .name_map import NameMap, Rule, rename_from_official, rename_to_official

NUM_STAGES = 4
_LEAF = r'(?:weight|bias)'
_BATCH_NORM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'
_BLOCK = (
    rf'\d+\.(?:layer_scale_[12]|norm[12]\.{_LEAF}|channel_mixer\.(?:fc1|dwconv|fc2)\.{_LEAF}'
    rf'|token_mixer\.(?:gc[12]\.(?:rescale_{_LEAF}|fc[12]\.{_LEAF})|dw[12]\.{_LEAF}|fc[12]\.[02]\.{_LEAF}))'
)
_TRUNK = tuple(
    Rule(official + names, f'{BACKBONE}downsample_layers.{stage}.{our_names}', rest)
    for stage, official in enumerate(['patch_embed.', *(f'network.{2 * i - 1}.' for i in range(1, NUM_STAGES))])
    for names, our_names, rest in (('proj.', 'projection.', _LEAF), ('norm.', 'norm.', _BATCH_NORM))
) + tuple(Rule(f'network.{2 * i}.', f'{BACKBONE}stages.{i}.', _BLOCK) for i in range(NUM_STAGES))
_PYRAMID = (*_TRUNK, *(Rule(f'norm{2 * i}.', f'{BACKBONE}norm{i}.', _LEAF) for i in range(NUM_STAGES)))
_CLASSIFIER = (
    *_TRUNK,
    Rule('norm.', f'{BACKBONE}norm{NUM_STAGES - 1}.', _LEAF),
    Rule('head.', 'head.fc.', _LEAF),
)
_DETECTOR = (
    *(Rule(BACKBONE + rule.official, rule.ours, rule.rest) for rule in _PYRAMID),
    Rule('', '', DETECTOR_PARTS),
)
_MARK = r'token_mixer\.gc1\.rescale_weight'
_IS_OFFICIAL = re.compile(rf'(?:backbone\.)?network\.\d+\.\d+\.{_MARK}')
_IS_OURS = re.compile(rf'backbone\.stages\.\d+\.\d+\.{_MARK}')
_PYRAMID_NORM = re.compile(r'norm[0246]\..+')


class FCViTFamily(CheckpointFamily):
    """Classifiers and detectors with an FCViT backbone."""

    name = 'fcvit'
    title = 'FCViT'
    weights_entry, average_entry = 'state_dict', 'state_dict_ema'

    def recognises_official(self, names: Collection[str]) -> bool:
        return any(_IS_OFFICIAL.fullmatch(name) for name in names)

    def recognises_ours(self, names: Collection[str]) -> bool:
        return any(_IS_OURS.fullmatch(name) for name in names)

    def official_kind(self, names: Collection[str]) -> Kind:
        return 'detection' if _is_bare_pyramid(names) else super().official_kind(names)

    def from_official(self, names: Collection[str]) -> NameMap:
        if _is_bare_pyramid(names):
            return rename_from_official(names, _PYRAMID)
        return rename_from_official(names, _CLASSIFIER if self.official_kind(names) == 'classification' else _DETECTOR)

    def to_official(self, names: Collection[str], kind: Kind) -> NameMap:
        if kind == 'detection':
            return rename_to_official(names, _DETECTOR)
        is_pyramid = any(name.startswith(tuple(f'{BACKBONE}norm{i}.' for i in range(NUM_STAGES - 1))) for name in names)
        return rename_to_official(names, _PYRAMID if is_pyramid else _CLASSIFIER)

    def model_config(self, state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
        arch = arch_of(state_dict)
        parts: dict[str, dict[str, Any]] = {
            'backbone': dict(
                type='FCViT',
                arch=arch,
                in_channels=state_dict[_projection(0)].shape[1],
                out_indices=[i for i in range(NUM_STAGES) if f'{BACKBONE}norm{i}.weight' in state_dict] or [3],
            )
        }
        if any(key.startswith('head.') for key in state_dict):
            fc = state_dict.get('head.fc.weight')
            parts['head'] = dict(
                type='mmpretrain.LinearClsHead',
                num_classes=1000 if fc is None else len(fc),
                in_channels=arch['embed_dims'][-1],
                loss=nn.Identity(),
            )
        return parts

    def describe(self, state_dict: Mapping[str, Tensor]) -> list[str]:
        arch = arch_of(state_dict)
        known = MODELS.get('FCViT').arch_zoo.items()
        name = next((f'arch {name!r}' for name, sizes in known if sizes == arch), 'custom arch')
        return [f'network    {self.title}, {name}: embed_dims {arch["embed_dims"]}, depths {arch["depths"]}']


def _is_bare_pyramid(names: Collection[str]) -> bool:
    """Return True for the backbone of a detection file without its prefix."""
    return any(_PYRAMID_NORM.fullmatch(name) for name in names)


def _projection(stage: int) -> str:
    return f'{BACKBONE}downsample_layers.{stage}.projection.weight'


def arch_of(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the complete ``arch`` of the backbone from the shapes of a state dict with our names.

    Raises:
        ValueError: A tensor that determines a size is missing.
    """
    stages = [f'{BACKBONE}stages.{i}.' for i in range(NUM_STAGES)]
    token_mixer = f'{stages[0]}0.token_mixer.'
    needed = (
        *map(_projection, range(NUM_STAGES)),
        *(f'{stage}0.channel_mixer.fc1.weight' for stage in stages),
        *(token_mixer + name for name in ('gc1.rescale_weight', 'dw1.weight', 'dw2.weight')),
    )
    missing = [key for key in needed if key not in state_dict]
    if missing:
        raise ValueError(f'the state dict has no {", ".join(missing)}, which every FCViT has')
    embed_dims = tuple(len(state_dict[_projection(i)]) for i in range(NUM_STAGES))
    hidden = [len(state_dict[f'{stage}0.channel_mixer.fc1.weight']) for stage in stages]
    return dict(
        embed_dims=embed_dims,
        depths=tuple(len({key.split('.')[3] for key in state_dict if key.startswith(stage)}) for stage in stages),
        mixer_ratios=tuple(width // dims for width, dims in zip(hidden, embed_dims, strict=True)),
        num_heads=len(state_dict[token_mixer + 'gc1.rescale_weight']),
        kernel_sizes=tuple(state_dict[f'{token_mixer}dw{i}.weight'].shape[-1] for i in (1, 2)),
    )
