"""Hooks that set the scales of a plain backbone when it loads a state dict, and save them with its own."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmengine.logging import print_log
from torch import Tensor

from ..checkpoint.resolution import METADATA_KEY, Resolution, Scale, scales_by_rule
from .name_hooks import find_misfit, take_own_tensors

if TYPE_CHECKING:
    from .defocus_backbone import DefocusBackbone

# Published scales are rounded, by up to 5 %.
_ROUNDING = 0.06


def add_scale_hooks(backbone: 'DefocusBackbone') -> None:
    """Make a backbone load official state dicts and those of whole models, and apply the rule for image sizes."""
    backbone._register_load_state_dict_pre_hook(_before_loading, with_module=True)
    backbone._register_state_dict_hook(_after_saving)


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
    weights = take_own_tensors(state_dict, prefix)
    misfit = find_misfit(backbone, weights)
    if misfit is not None:
        errors.append(misfit)
        return
    expected = dict(backbone.named_parameters())
    common = expected.keys() & weights.keys()
    trained = Resolution.from_metadata(metadata)
    if common and (trained is not None or len(common) == len(expected)):
        _adapt_scales(backbone, trained)


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
