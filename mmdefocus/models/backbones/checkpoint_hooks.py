"""Hooks that run when a state dict is loaded into a plain backbone or taken from it.

They rename keys, explain shapes that do not fit and set the scales. As for any PyTorch module, ``strict`` of the caller
decides whether a state dict must be complete.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mmengine.logging import print_log
from torch import Tensor

from ..checkpoint.names import backbone_state_dict, is_official, rename_official
from ..checkpoint.resolution import METADATA_KEY, Resolution, Scale, scales_by_rule

if TYPE_CHECKING:
    from .defocus_backbone import DefocusBackbone

# Published scales are rounded, by up to 5 %.
_ROUNDING = 0.06


def add_checkpoint_hooks(backbone: 'DefocusBackbone') -> None:
    """Make a backbone load official state dicts and those of whole models, and apply the rule for image sizes."""
    backbone._register_load_state_dict_pre_hook(_before_loading, with_module=True)
    backbone._register_state_dict_hook(_after_saving)


def translate_official_names(state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Rename official keys of a classifier in place, heads included, before MMPreTrain loads it."""
    own = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
    if is_official(own):
        for key in own:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in rename_official(own).items()})


def resolution_of(backbone: 'DefocusBackbone') -> Resolution:
    """Return the image size and the scales of a backbone."""
    height, width = backbone.img_size
    per_image = _is_per_image(backbone)
    scales = (backbone.rope_scale, backbone.delta_scale) if per_image else backbone.scales_at(height, width)
    return Resolution(height, width, *scales, backbone.pretrain_size, per_image)


def _is_per_image(backbone: 'DefocusBackbone') -> bool:
    return backbone.scale_rule == 'per_image'


def _after_saving(backbone: 'DefocusBackbone', state_dict: object, prefix: str, metadata: dict[str, Any]) -> None:
    metadata[METADATA_KEY] = resolution_of(backbone).to_metadata()


def _before_loading(
    backbone: 'DefocusBackbone',
    state_dict: dict[str, Tensor],
    prefix: str,
    metadata: Mapping[str, Any],
    _strict: bool,  # always True: PyTorch and MMEngine apply the caller's value after the hooks
    _missing_keys: list[str],
    _unexpected_keys: list[str],
    errors: list[str],
) -> None:
    own = {key[len(prefix) :]: state_dict[key] for key in state_dict if key.startswith(prefix)}
    weights = backbone_state_dict(own)
    for key in own:
        del state_dict[prefix + key]
    state_dict.update({prefix + key: value for key, value in weights.items()})
    expected = {name: parameter.shape for name, parameter in backbone.named_parameters()}
    common = expected.keys() & weights.keys()
    wrong = [name for name in expected if name in common and expected[name] != weights[name].shape]
    if wrong:
        errors.append(_misfit(backbone, weights, wrong[0]))
        return
    trained = Resolution.from_metadata(metadata)
    if common and (trained is not None or len(common) == len(expected)):
        _adapt_scales(backbone, trained)


def _misfit(backbone: 'DefocusBackbone', weights: Mapping[str, Tensor], wrong: str) -> str:
    own, theirs = (_size(backbone, tensors) for tensors in (dict(backbone.named_parameters()), weights))
    return (
        f'expected weights of {own}, got weights of {theirs if theirs != own else "the same width and depth"} whose '
        f'{wrong} is {tuple(weights[wrong].shape)}, not {tuple(backbone.get_parameter(wrong).shape)}; give '
        f'{type(backbone).__name__} the sizes of the checkpoint'
    )


def _size(backbone: 'DefocusBackbone', weights: Mapping[str, Tensor]) -> str:
    width = weights['cls_token'].shape[-1] if 'cls_token' in weights else None
    size = dict(embed_dims=width, num_layers=_num_layers(weights))
    archs = backbone.arch_zoo.items()
    name = next((name for name, arch in archs if all(arch.get(key) == value for key, value in size.items())), None)
    return f'{f"arch={name!r}" if name else "another arch"} (embed_dims={width}, num_layers={size["num_layers"]})'


def _num_layers(keys: Iterable[str]) -> int:
    return len({key.split('.')[1] for key in keys if key.startswith('layers.')})


def _adapt_scales(backbone: 'DefocusBackbone', trained: Resolution | None) -> None:
    used = resolution_of(backbone)
    present = (used.rope_scale, used.delta_scale)
    per_image = _is_per_image(backbone)
    if trained is None:
        trained = _assumed(backbone, used)
        if trained is None:
            return
    elif per_image and not trained.is_detector:
        if trained.height != trained.width:
            _warn(
                f'{_trained(trained)}; the published rule for detectors applies to weights trained on square images; '
                f'{_scales(*present)} are kept'
            )
            return
        if used.pretrain_size not in (None, trained.height):
            _warn(f'pretrain_size is {used.pretrain_size}, but the checkpoint was trained at {trained.height} pixels')
    by_rule = scales_by_rule(trained, used)
    free = backbone.scales_follow_checkpoint
    if by_rule is None:
        if any(free):
            _warn(
                f"{_trained(trained)}; there is no rule from scale_rule='per_image' (detectors) to 'nominal' "
                f'(classifiers); {_scales(*present)} are kept'
            )
        return
    adapted = tuple(rule if follows else own for rule, own, follows in zip(by_rule, present, free, strict=True))
    if any(_differ(rule, own) for rule, own in zip(by_rule, adapted, strict=True)):
        _warn(
            f'{_trained(trained)}; the published rule gives {_scales(*by_rule)} here, but the config sets '
            f'{_scales(*adapted)}, which are kept'
        )
    if adapted == present:
        return
    backbone.rope_scale, backbone.delta_scale = adapted
    if 'auto' in adapted and backbone.pretrain_size is None:
        backbone.pretrain_size = trained.pretrain_size if trained.is_detector else trained.height
    print_log(f'{_trained(trained)}; by the published rule the backbone now has {_scales(*adapted)}', 'current')


def _assumed(backbone: 'DefocusBackbone', used: Resolution) -> Resolution | None:
    """Assume a training resolution for a state dict without metadata.

    None if both scales are set by the config, or if there is no basis for an assumption.
    """
    if not any(backbone.scales_follow_checkpoint):
        return None
    unknown = 'the state dict does not record its image size and scales'
    side = used.pretrain_size
    if _is_per_image(backbone) and side is not None:
        _warn(f'{unknown}; assuming a classifier trained at pretrain_size, {side} x {side} pixels')
        return Resolution(side, side, 1.0, 1.0)
    _warn(f'{unknown}; {_scales(used.rope_scale, used.delta_scale)} are kept')
    return None


def _trained(trained: Resolution) -> str:
    scales = _scales(trained.rope_scale, trained.delta_scale)
    if trained.is_detector:
        return f"the checkpoint was trained with scale_rule='per_image', {scales}"
    return f'the checkpoint was trained at {trained.height} x {trained.width} pixels with {scales}'


def _scales(rope_scale: Scale, delta_scale: Scale) -> str:
    return f'rope_scale={_show(rope_scale)} and delta_scale={_show(delta_scale)}'


def _show(scale: Scale) -> str:
    return repr(scale) if isinstance(scale, str) else f'{scale:.4g}'


def _differ(first: Scale, second: Scale) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return False
    return abs(first - second) > _ROUNDING * second


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
