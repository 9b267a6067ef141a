"""De-focus Mamba: the official files of De-focus Attention Networks (release v1.0) and our checkpoints.

Values are the same, only names differ:

===================================  ====================================================
official classification              ours
===================================  ====================================================
``cls_token``, ``norm.*``            ``backbone.cls_token``, ``backbone.norm.*``
``patch_embed.proj.*``               ``backbone.patch_embed.projection.*``
``blocks.I.*``                       ``backbone.layers.I.*``
``head.*``, ``head2.*``              ``head.fc.*``, ``head.aux_fc.*``
===================================  ====================================================

Official detection files already have the prefix ``backbone.`` and ``patch_embed.projection``; only ``blocks`` becomes
``layers``. The names of neck and DINO are the same.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from ..resolution import METADATA_KEY, Resolution
from .family import BACKBONE, CheckpointFamily, Kind
from .name_map import NameMap, Rule, rename_from_official, rename_to_official

_LEAF = r'(?:weight|bias)'
_BLOCK = (
    r'\d+\.(?:norm\.weight|mixer\.(?:A_log|D|freq|conv1d\.weight|conv1d\.bias|in_proj\.weight|x_proj\.weight'
    r'|dt_proj\.weight|dt_proj\.bias|out_proj\.weight))'
)
_HEAD = rf'(?:[02]\.)?{_LEAF}'
_NECK = rf'(?:fpn1\.[013]|fpn2\.0|lateral_convs\.\d+\.(?:conv|norm_layer)|fpn_convs\.\d+\.(?:conv|norm_layer))\.{_LEAF}'
_DINO = (
    r'(?:bbox_head|encoder|decoder|memory_trans_fc|memory_trans_norm|query_embedding|dn_query_generator)\..+'
    r'|level_embed'
)
_DETECTOR_BACKBONE = (
    Rule('', BACKBONE, rf'cls_token|norm\.{_LEAF}|patch_embed\.projection\.{_LEAF}'),
    Rule('blocks.', f'{BACKBONE}layers.', _BLOCK),
)
_RULES: dict[Kind, tuple[Rule, ...]] = {
    'classification': (
        Rule('', BACKBONE, rf'cls_token|norm\.{_LEAF}'),
        Rule('patch_embed.proj.', f'{BACKBONE}patch_embed.projection.', _LEAF),
        Rule('blocks.', f'{BACKBONE}layers.', _BLOCK),
        Rule('head.', 'head.fc.', _HEAD),
        Rule('head2.', 'head.aux_fc.', _HEAD),
    ),
    'detection': (
        *(Rule(BACKBONE + official, ours, rest) for official, ours, rest in _DETECTOR_BACKBONE),
        Rule('neck.', 'neck.', _NECK),
        Rule('', '', _DINO),
    ),
}
_IS_OFFICIAL = re.compile(r'(?:backbone\.)?blocks\.\d+\.mixer\.A_log')
_IS_OURS = re.compile(r'backbone\.layers\.\d+\.mixer\.A_log')


class DefocusMambaFamily(CheckpointFamily):
    """Classifiers and DINO detectors with a De-focus Mamba backbone."""

    name = 'defocus_mamba'
    title = 'De-focus Mamba'
    classifiers = ('head.fc', 'head.aux_fc')

    def recognises_official(self, names: Collection[str]) -> bool:
        return any(_IS_OFFICIAL.fullmatch(name) for name in names)

    def recognises_ours(self, names: Collection[str]) -> bool:
        return any(_IS_OURS.fullmatch(name) for name in names)

    def official_kind(self, names: Collection[str]) -> Kind:
        return 'detection' if _is_bare_detector_backbone(names) else super().official_kind(names)

    def from_official(self, names: Collection[str]) -> NameMap:
        bare = _is_bare_detector_backbone(names)
        return rename_from_official(names, _DETECTOR_BACKBONE if bare else _RULES[self.official_kind(names)])

    def to_official(self, names: Collection[str], kind: Kind) -> NameMap:
        return rename_to_official(names, _RULES[kind])

    def read_metadata(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Read image size and scales from the config of a classification file."""
        try:
            config = content['config']
            side, mixer = config['DATA']['IMG_SIZE'], config['MODEL']['MAMBA']
            trained = Resolution(side, side, mixer['rope_scale_factor'], mixer['delta_scale_factor'])
        except (KeyError, TypeError):
            return {}
        return {METADATA_KEY: trained.to_metadata()}

    def write_metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Write image size and scales of a classifier as the config of an official file does."""
        trained = Resolution.from_metadata(metadata)
        if trained is None or trained.is_detector:
            return {}
        mixer = {'rope_scale_factor': trained.rope_scale, 'delta_scale_factor': trained.delta_scale}
        return {'config': {'DATA': {'IMG_SIZE': trained.height}, 'MODEL': {'MAMBA': mixer}}}

    def model_config(self, state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
        arch = arch_of(state_dict)
        projection = state_dict.get('backbone.patch_embed.projection.weight')
        _, channels, side, _ = (0, 3, 16, 16) if projection is None else projection.shape
        parts: dict[str, dict[str, Any]] = {
            'backbone': dict(
                type='DefocusMamba',
                arch=arch,
                img_size=side,
                patch_size=side,
                in_channels=channels,
                rotary='backbone.layers.0.mixer.freq' in state_dict,
            )
        }
        if any(key.startswith('head.') for key in state_dict):
            parts['head'] = _head_config(state_dict, arch['embed_dims'])
        if any(key.startswith('neck.') for key in state_dict):
            levels = [key for key in state_dict if key.startswith('neck.fpn_convs.') and key.endswith('.conv.weight')]
            parts['neck'] = dict(
                type='SimpleFeaturePyramid',
                in_channels=arch['embed_dims'],
                out_channels=len(state_dict[levels[0]]) if levels else 256,
                num_outs=len(levels) or 4,
            )
        return parts

    def describe(self, state_dict: Mapping[str, Tensor]) -> list[str]:
        arch = arch_of(state_dict)
        sizes = f'embed_dims {arch["embed_dims"]}, {arch["num_layers"]} layers'
        network = f'network    {self.title}, {_arch_name(arch)}: {sizes}'
        trained = Resolution.from_metadata(getattr(state_dict, '_metadata', {}).get('backbone', {}))
        if trained is None or trained.is_detector:
            return [network]
        ratio = 1024 / trained.height
        return [
            network,
            f'trained at {trained.height} x {trained.width} pixels, rope_scale {trained.rope_scale:g}, '
            f'delta_scale {trained.delta_scale:g}',
            f'           a detector with pretrain_size={trained.height} sets its scales by the published rule: at '
            f'1024 x 1024 pixels rope_scale {ratio**2:.4g}, delta_scale {ratio:.4g}',
        ]


def _is_bare_detector_backbone(names: Collection[str]) -> bool:
    """Return True for the backbone of a detection file without its prefix."""
    return 'patch_embed.projection.weight' in names


def arch_of(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    """Infer the complete ``arch`` of the backbone from the shapes of a state dict with our names.

    Raises:
        ValueError: A tensor that determines a size is missing.
    """
    first = 'backbone.layers.0.mixer.'
    needed = ('backbone.cls_token', *(first + name for name in ('A_log', 'conv1d.weight', 'dt_proj.weight')))
    missing = [key for key in needed if key not in state_dict]
    if missing:
        raise ValueError(f'the state dict has no {", ".join(missing)}, which every De-focus Mamba has')
    inner_dims, state_dims = state_dict[first + 'A_log'].shape
    return dict(
        embed_dims=state_dict['backbone.cls_token'].shape[-1],
        num_layers=len({key.split('.')[2] for key in state_dict if key.startswith('backbone.layers.')}),
        inner_dims=inner_dims,
        state_dims=state_dims,
        conv_kernel=state_dict[first + 'conv1d.weight'].shape[-1],
        dt_rank=state_dict[first + 'dt_proj.weight'].shape[-1],
        group_size=inner_dims,  # no tensor depends on it
    )


def _head_config(state_dict: Mapping[str, Tensor], in_channels: int) -> dict[str, Any]:
    hidden = state_dict.get('head.fc.0.weight')
    last = state_dict.get('head.fc.weight' if hidden is None else 'head.fc.2.weight')
    return dict(
        type='DefocusClsHead',
        num_classes=1000 if last is None else len(last),
        in_channels=in_channels,
        hidden_dims=None if hidden is None else len(hidden),
        loss=nn.Identity(),
    )


def _arch_name(arch: Mapping[str, int]) -> str:
    known = MODELS.get('DefocusMamba').arch_zoo.items()
    names = (name for name, sizes in known if {**sizes, 'group_size': arch['group_size']} == arch)
    return next((f'arch {name!r}' for name in names), 'custom arch')
