"""What a backbone does when a state dict is loaded into it or taken from it."""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mmengine.logging import print_log
from torch import Tensor

from ..checkpoint.key_mapping import backbone_state_dict
from ..checkpoint.official import check_finite
from ..checkpoint.resolution import METADATA_KEY, Resolution, Scale, scales_by_rule

if TYPE_CHECKING:
    from .defocus_backbone import DefocusBackbone

# Published scales are rounded, by up to 5 %.
_ROUNDING = 0.06


def add_checkpoint_hooks(backbone: 'DefocusBackbone') -> None:
    """Make a backbone load official and whole state dicts, refuse others, and follow the rule for image sizes."""
    backbone._register_load_state_dict_pre_hook(_before_loading, with_module=True)
    backbone._register_state_dict_hook(_after_saving)


def _after_saving(backbone: 'DefocusBackbone', state_dict: object, prefix: str, metadata: dict[str, Any]) -> None:
    metadata[METADATA_KEY] = resolution_of(backbone).to_metadata()


def _before_loading(
    backbone: 'DefocusBackbone', state_dict: dict[str, Tensor], prefix: str, metadata: Mapping[str, Any], *_: object
) -> None:
    own = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
    weights = backbone_state_dict(own)
    _check_weights(backbone, weights)
    for key in own:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in weights.items()})
    trained = Resolution.from_metadata(metadata)
    if trained is not None:
        _adapt_scales(backbone, trained)


def _check_weights(backbone: 'DefocusBackbone', weights: Mapping[str, Tensor]) -> None:
    expected = dict(backbone.named_parameters())
    common = expected.keys() & weights.keys()
    if not common:
        raise ValueError(
            f'expected weights of a {type(backbone).__name__} (cls_token, layers.0.norm.weight, ...), got none: the '
            f'checkpoint is of another model, its keys here are {_listed(weights)}'
        )
    wrong = [key for key in expected if key in common and expected[key].shape != weights[key].shape]
    if wrong or _num_layers(weights) != _num_layers(expected):
        first = [f'; {key} is {tuple(weights[key].shape)}, not {tuple(expected[key].shape)}' for key in wrong[:1]]
        raise ValueError(
            f'expected weights of {_size(backbone, expected)}, got weights of {_size(backbone, weights)}'
            f'{"".join(first)}; give the backbone the sizes that the checkpoint has'
        )
    check_finite({key: weights[key] for key in common})


def _size(backbone: 'DefocusBackbone', weights: Mapping[str, Tensor]) -> str:
    width = weights['cls_token'].shape[-1] if 'cls_token' in weights else None
    size = dict(embed_dims=width, num_layers=_num_layers(weights))
    archs = getattr(backbone, 'arch_zoo', {}).items()
    name = next((name for name, arch in archs if all(arch.get(key) == value for key, value in size.items())), None)
    return f'{f"arch={name!r}" if name else "another arch"} (embed_dims={width}, num_layers={size["num_layers"]})'


def _num_layers(keys: Iterable[str]) -> int:
    return len({key.split('.')[1] for key in keys if key.startswith('layers.')})


def _listed(keys: Iterable[str]) -> str:
    keys = list(keys)
    return ', '.join(keys[:3]) + (', ...' if len(keys) > 3 else '') or 'none'


def resolution_of(backbone: 'DefocusBackbone') -> Resolution:
    """Image size and scales of a backbone."""
    height, width = backbone.img_size
    is_detector = backbone.out_type == 'featmap'
    scales = (backbone.rope_scale, backbone.delta_scale) if is_detector else backbone.scales_at(height, width)
    return Resolution(height, width, *scales, backbone.pretrain_size, is_detector)


def _adapt_scales(backbone: 'DefocusBackbone', trained: Resolution) -> None:
    used = resolution_of(backbone)
    # Square for all published classifiers. Of another one, a detector cannot count its windows.
    side = trained.pretrain_size if trained.is_detector else trained.height
    if used.is_detector and not trained.is_detector:
        if trained.height != trained.width:
            return
        if used.pretrain_size not in (None, side):
            _warn(f'pretrain_size is {used.pretrain_size}, but the checkpoint was trained at {side} pixels')
    scales = scales_by_rule(trained, used)
    if scales is None or scales == (used.rope_scale, used.delta_scale):
        return
    described = f'rope_scale={_show(scales[0])} and delta_scale={_show(scales[1])}'
    if (backbone.rope_scale, backbone.delta_scale) == (1.0, 1.0):
        backbone.rope_scale, backbone.delta_scale = scales
        if 'auto' in scales:
            backbone.pretrain_size = backbone.pretrain_size or side
        print_log(f'{_trained(trained)}; by the published rule the backbone now has {described}', 'current')
    elif any(_differ(scale, own) for scale, own in zip(scales, (used.rope_scale, used.delta_scale), strict=True)):
        _warn(
            f'{_trained(trained)}, which the published rule takes to {described} here, but the config says '
            f'rope_scale={_show(used.rope_scale)} and delta_scale={_show(used.delta_scale)}, which is kept'
        )


def _trained(trained: Resolution) -> str:
    scales = f'rope_scale={_show(trained.rope_scale)} and delta_scale={_show(trained.delta_scale)}'
    if trained.is_detector:
        return f'the checkpoint is of a detector with {scales}'
    return f'the checkpoint was trained at {trained.height} x {trained.width} pixels with {scales}'


def _show(scale: Scale) -> str:
    return repr(scale) if isinstance(scale, str) else f'{scale:.4g}'


def _differ(first: Scale, second: Scale) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return False
    return abs(first - second) > _ROUNDING * second


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
