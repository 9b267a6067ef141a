"""Key mapping between the official checkpoints of De-focus Attention Networks and ours.

Values are passed on as they are. What differs are names:

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
from collections.abc import Mapping
from typing import Literal, TypeVar

Value = TypeVar('Value')
Kind = Literal['classification', 'detection']

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
# Official prefix, our prefix, and the pattern of what follows either of them.
_RULES: dict[Kind, tuple[tuple[str, str, str], ...]] = {
    'classification': (
        ('', 'backbone.', rf'cls_token|norm\.{_LEAF}'),
        ('patch_embed.proj.', 'backbone.patch_embed.projection.', _LEAF),
        ('blocks.', 'backbone.layers.', _BLOCK),
        ('head.', 'head.fc.', _HEAD),
        ('head2.', 'head.aux_fc.', _HEAD),
    ),
    'detection': (
        ('backbone.', 'backbone.', rf'cls_token|norm\.{_LEAF}|patch_embed\.projection\.{_LEAF}'),
        ('backbone.blocks.', 'backbone.layers.', _BLOCK),
        ('neck.', 'neck.', _NECK),
        ('', '', _DINO),
    ),
}


_IS_OFFICIAL = re.compile(r'(?:backbone\.)?blocks\.\d+\.mixer\.A_log')
_BACKBONE = 'backbone.'


def is_official(state_dict: Mapping[str, Value]) -> bool:
    """Whether these are parameters of a De-focus Mamba under official names, of either kind of file."""
    return any(_IS_OFFICIAL.fullmatch(str(key)) for key in state_dict)


def official_kind(state_dict: Mapping[str, Value]) -> Kind:
    """Which kind of file official names are from; the prefix of the backbone tells."""
    return 'detection' if any(key.startswith(_BACKBONE) for key in state_dict) else 'classification'


def official_to_mmdefocus(state_dict: Mapping[str, Value], strict: bool = True) -> dict[str, Value]:
    """Rename the keys of an official state dict to ours.

    Args:
        state_dict: The ``model`` (or ``model_ema``) entry of a classification file or the ``state_dict`` entry of a
            detection file.
        strict: Raise if there are other keys. Else they are left out.

    Returns:
        The same values in the same order: ``backbone.*`` and ``head.*`` from classification, ``backbone.*``,
        ``neck.*`` and DINO's own keys from detection.

    Raises:
        TypeError: ``state_dict`` is no mapping.
        ValueError: A whole checkpoint instead of its state dict, keys that are ours already, or keys of another model.
    """
    _check_state_dict(state_dict)
    if any(key.startswith('backbone.layers.') for key in state_dict):
        raise ValueError('expected official keys (blocks.*), got keys that are already in the naming of mmdefocus')
    kind = official_kind(state_dict)
    rules = [(re.compile(re.escape(official) + f'({rest})'), ours) for official, ours, rest in _RULES[kind]]
    return _rename(state_dict, rules, f'official {kind}', strict)


def mmdefocus_to_official(state_dict: Mapping[str, Value], kind: Kind | None = None) -> dict[str, Value]:
    """Rename the keys of one of our state dicts to the official ones; inverse of :func:`official_to_mmdefocus`.

    Args:
        state_dict: State dict of a classifier or a DINO detector.
        kind: ``'classification'`` or ``'detection'`` names to write. By default, detection where there are keys of
            a neck or a detector, else classification.

    Returns:
        The same values in the same order.

    Raises:
        TypeError: ``state_dict`` is no mapping.
        ValueError: A whole checkpoint instead of its state dict, official keys, keys of another model, or unknown
            ``kind``.
    """
    _check_state_dict(state_dict)
    if kind is not None and kind not in _RULES:
        raise ValueError(f'kind must be one of {list(_RULES)} or None, got {kind!r}')
    if any(key.startswith(('blocks.', 'backbone.blocks.')) for key in state_dict):
        raise ValueError('expected keys in the naming of mmdefocus (backbone.layers.*), got official keys')
    if kind is None:
        is_classifier = all(key.startswith(('backbone.', 'head.')) for key in state_dict)
        kind = 'classification' if is_classifier else 'detection'
    rules = [(re.compile(re.escape(ours) + f'({rest})'), official) for official, ours, rest in _RULES[kind]]
    return _rename(state_dict, rules, f'mmdefocus {kind}', strict=True)


def rename_official(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """As :func:`official_to_mmdefocus`, but other keys keep their names, for a caller that decides about them."""
    sources = official_to_mmdefocus({key: key for key in state_dict}, strict=False)
    renamed = {ours: state_dict[official] for ours, official in sources.items()}
    known = set(sources.values())
    return renamed | {key: value for key, value in state_dict.items() if key not in known}


def backbone_state_dict(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """The backbone's part of a state dict, under the backbone's own names.

    Args:
        state_dict: Official or ours, of a whole classifier or detector or of the backbone alone.

    Returns:
        The same values under ``cls_token``, ``layers.0.norm.weight`` and so on. Keys that are not known keep their
        names; those of other parts of a whole model are left out.
    """
    if is_official(state_dict):
        if 'patch_embed.projection.weight' in state_dict:  # a detection file without its prefix
            state_dict = {_BACKBONE + key: value for key, value in state_dict.items()}
        kind = official_kind(state_dict)
        state_dict = rename_official(state_dict)
        if kind == 'classification':  # without a prefix, an unknown key may be the backbone's
            state_dict = {
                key if key.startswith((_BACKBONE, 'head.')) else _BACKBONE + key: value
                for key, value in state_dict.items()
            }
    part = {key[len(_BACKBONE) :]: value for key, value in state_dict.items() if key.startswith(_BACKBONE)}
    return part or dict(state_dict)


def _check_state_dict(state_dict: Mapping[str, Value]) -> None:
    if not isinstance(state_dict, Mapping):
        raise TypeError(f'expected a state dict (name to tensor), got {type(state_dict).__name__}')
    for entry in ('model', 'state_dict'):
        if entry in state_dict:
            raise ValueError(f'expected a state dict, got a whole checkpoint; pass its entry {entry!r}')


def _rename(
    state_dict: Mapping[str, Value], rules: list[tuple[re.Pattern[str], str]], naming: str, strict: bool
) -> dict[str, Value]:
    renamed: dict[str, Value] = {}
    leftovers = []
    for key, value in state_dict.items():
        matches = ((pattern.fullmatch(key), target) for pattern, target in rules)
        found = next((target + match.group(1) for match, target in matches if match), None)
        if found is None:
            leftovers.append(key)
        else:
            renamed[found] = value
    if leftovers and strict:
        raise ValueError(f'{len(leftovers)} keys do not belong to the {naming} names: {", ".join(leftovers)}')
    return renamed
