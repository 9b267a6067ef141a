"""DAT and DAT++: the official files of both versions and our checkpoints.

Values are the same, only names differ; ``B`` counts the blocks of stage ``I``:

==============================================  ==============================================
official                                        ours, after ``backbone.``
==============================================  ==============================================
``patch_proj.N.*``                              ``downsample_layers.0.N.*``
``down_projs.I.N.*``                            ``downsample_layers.I+1.N.*``
``stages.I.layer_norms.2B.norm.*``              ``stages.I.B.norm1.*``
``stages.I.layer_norms.2B+1.norm.*``            ``stages.I.B.norm2.*``
``stages.I.attns.B.*``                          ``stages.I.B.attn.*``
``stages.I.mlps.B.*``                           ``stages.I.B.ffn.*``
``stages.I.local_perception_units.B.*``         ``stages.I.B.lpu.*``
``cls_norm.norm.*`` or ``norms.I.norm.*``       ``norm3.*`` or ``normI.*``
``cls_head.*``                                  ``head.fc.*`` without ``backbone.``
==============================================  ==============================================

Norms on maps lose ``.norm`` in their names. Official detection files have the prefix ``backbone.`` already and share
the names of neck and heads.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor

from .dat_sizes import find_sizes
from .family import BACKBONE, DETECTOR_PARTS, CheckpointFamily, Kind
from .name_map import NameMap

_STEM_AND_DOWN = {
    **{f'patch_proj.{layer}': f'downsample_layers.0.{layer}' for layer in (0, 3)},
    **{f'patch_proj.{layer}.norm': f'downsample_layers.0.{layer}' for layer in (1, 4)},
    **{f'down_projs.{stage}.0': f'downsample_layers.{stage + 1}.0' for stage in range(3)},
    **{f'down_projs.{stage}.1.norm': f'downsample_layers.{stage + 1}.1' for stage in range(3)},
}
# Modules of block b, whose norms are number 2 b and 2 b + 1.
_BLOCK = {
    'layer_norms.{first}.norm': 'norm1',
    'layer_norms.{second}.norm': 'norm2',
    'local_perception_units.{b}': 'lpu',
    **{f'attns.{{b}}.{name}': f'attn.{name}' for name in ('qkv', 'proj', 'proj_qkv', 'proj_out')},
    **{f'attns.{{b}}.{name}': f'attn.{name}' for name in ('proj_q', 'proj_k', 'proj_v')},
    **{f'attns.{{b}}.conv_offset.{layer}': f'attn.conv_offset.{layer}' for layer in (0, 3)},
    'attns.{b}.conv_offset.1.norm': 'attn.conv_offset.1',
    'mlps.{b}.linear1.0': 'ffn.conv1',
    'mlps.{b}.dwc': 'ffn.dwconv',
    'mlps.{b}.linear2.0': 'ffn.conv2',
    'mlps.{b}.chunk.linear1': 'ffn.linear1',
    'mlps.{b}.chunk.linear2': 'ffn.linear2',
}
_BLOCK_TENSORS = {
    **{f'{official}.{leaf}': f'{ours}.{leaf}' for official, ours in _BLOCK.items() for leaf in ('weight', 'bias')},
    'attns.{b}.rpb': 'attn.rpb',
    'attns.{b}.rpe_table': 'attn.rpe_table.weight',
    **{
        f'attns.{{b}}.{name}': f'attn.{name}'
        for name in ('relative_position_bias_table', 'relative_position_index', 'attn_mask')
    },
}
_OFFICIAL_BLOCK = re.compile(r'(?:backbone\.)?stages\.(\d+)\.(?:layer_norms|attns)\.(\d+)\..+')
_OUR_BLOCK = re.compile(r'backbone\.stages\.(\d+)\.(\d+)\..+')
_IS_OFFICIAL = re.compile(r'(?:backbone\.)?stages\.\d+\.layer_norms\.\d+\.norm\.weight')
_IS_OURS = re.compile(r'backbone\.stages\.\d+\.\d+\.attn\.(?:qkv|proj_q|proj_qkv)\.weight')
# Classifiers have none of them.
_NORMS_OF_PYRAMIDS = tuple(f'{BACKBONE}norm{stage}.' for stage in range(3))
_DETECTOR = re.compile(DETECTOR_PARTS)


class DATFamily(CheckpointFamily):
    """Classifiers and detectors with a DAT backbone, of either version."""

    name = 'dat'
    title = 'DAT'

    def recognises_official(self, names: Collection[str]) -> bool:
        return any(_IS_OFFICIAL.fullmatch(name) for name in names)

    def recognises_ours(self, names: Collection[str]) -> bool:
        return any(_IS_OURS.fullmatch(name) for name in names)

    def official_kind(self, names: Collection[str]) -> Kind:
        is_bare_detector_backbone = any(name.startswith('norms.') for name in names)
        return 'detection' if is_bare_detector_backbone else super().official_kind(names)

    def from_official(self, names: Collection[str]) -> NameMap:
        table = _official_to_ours(_blocks(_OFFICIAL_BLOCK, names))
        has_prefix = any(name.startswith(BACKBONE) for name in names)
        name_map: NameMap = {}
        for name in names:
            if has_prefix and _DETECTOR.fullmatch(name):
                name_map[name] = name
            elif name.startswith(BACKBONE) == has_prefix and name.removeprefix(BACKBONE) in table:
                name_map[table[name.removeprefix(BACKBONE)]] = name
        return name_map

    def to_official(self, names: Collection[str], kind: Kind) -> NameMap:
        ours_to_official = {ours: old for old, ours in _official_to_ours(_blocks(_OUR_BLOCK, names)).items()}
        if kind == 'classification' and not any(name.startswith(_NORMS_OF_PYRAMIDS) for name in names):
            ours_to_official |= {f'{BACKBONE}norm3.{leaf}': f'cls_norm.norm.{leaf}' for leaf in ('weight', 'bias')}
        prefix = BACKBONE if kind == 'detection' else ''
        name_map: NameMap = {}
        for name in names:
            if kind == 'detection' and _DETECTOR.fullmatch(name):
                name_map[name] = name
            elif name in ours_to_official:
                name_map[prefix + ours_to_official[name]] = name
        return name_map

    def model_config(self, state_dict: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
        weights = _backbone_part(state_dict)
        sizes = find_sizes(weights)
        stem = weights.get('downsample_layers.0.0.weight')
        outputs = tuple(stage for stage in range(4) if f'norm{stage}.weight' in weights)
        arch = sizes.complete_arch(MODELS.get('DAT').arch_zoo)
        parts: dict[str, dict[str, Any]] = {
            'backbone': dict(
                type='DAT',
                arch=arch,
                in_channels=3 if stem is None else stem.shape[1],
                out_indices=outputs or (3,),
                img_size=sizes.img_size or 224,
                window_size=sizes.window_size or 7,
            )
        }
        if any(name.startswith('head.') for name in state_dict):
            last = state_dict.get('head.fc.weight')
            parts['head'] = dict(
                type='mmpretrain.LinearClsHead',
                num_classes=1000 if last is None else len(last),
                in_channels=arch['embed_dims'][-1],
            )
        return parts

    def describe(self, state_dict: Mapping[str, Tensor]) -> list[str]:
        sizes = find_sizes(_backbone_part(state_dict))
        return [f'network    {self.title}, {sizes.describe(MODELS.get("DAT").arch_zoo)}']


def _official_to_ours(blocks: Iterable[tuple[int, int]]) -> dict[str, str]:
    """Return our name of every tensor that a backbone with these (stage, block), or its classifier, may have."""
    modules = {**_STEM_AND_DOWN, 'cls_norm.norm': 'norm3', **{f'norms.{i}.norm': f'norm{i}' for i in range(4)}}
    leaves = ('weight', 'bias')
    table = {f'{old}.{leaf}': f'{BACKBONE}{new}.{leaf}' for old, new in modules.items() for leaf in leaves}
    for stage, b in blocks:
        for old, new in _BLOCK_TENSORS.items():
            official = old.format(b=b, first=2 * b, second=2 * b + 1)
            table[f'stages.{stage}.{official}'] = f'{BACKBONE}stages.{stage}.{b}.{new}'
    return table | {f'cls_head.{leaf}': f'head.fc.{leaf}' for leaf in leaves}


def _blocks(pattern: re.Pattern[str], names: Iterable[str]) -> set[tuple[int, int]]:
    """Return (stage, number) of names; official norms count twice as far as blocks, and the table then has spares."""
    matches = (pattern.fullmatch(name) for name in names)
    return {(int(match[1]), int(match[2])) for match in matches if match}


def _backbone_part(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(BACKBONE): value for name, value in state_dict.items() if name.startswith(BACKBONE)}
