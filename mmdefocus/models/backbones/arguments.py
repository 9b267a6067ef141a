"""Checks of the arguments of a backbone and of the images that it receives."""

import difflib
import inspect
import math
from collections.abc import Mapping

from mmengine.model import BaseModule
from torch import Tensor

from ..checkpoint.resolution import Scale


def refuse_unknown(backbone: type[BaseModule], unknown: Mapping[str, object]) -> None:
    """Refuse keyword arguments that no constructor of a backbone declares.

    Args:
        backbone: Class that is constructed. Its arguments are those of its constructor and of its bases.
        unknown: The other keyword arguments.

    Raises:
        TypeError: If there are any. The message suggests the nearest known argument, or lists all of them.
    """
    if not unknown:
        return
    known = _arguments_of(backbone)
    nearest = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    names = ', '.join(f'{name!r} (did you mean {near[0]!r}?)' if near else repr(name) for name, near in nearest.items())
    listing = '' if all(nearest.values()) else f'; its arguments are {", ".join(known)}'
    raise TypeError(f'{backbone.__name__} has no argument {names}{listing}')


def _arguments_of(backbone: type[BaseModule]) -> list[str]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    constructors = [vars(base).get('__init__') for base in backbone.__mro__[: backbone.__mro__.index(BaseModule)]]
    parameters = [
        parameter
        for constructor in filter(None, constructors)
        for parameter in inspect.signature(constructor).parameters.values()
    ]
    names = dict.fromkeys(parameter.name for parameter in parameters if parameter.kind not in variadic)
    return [name for name in names if name != 'self']


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError if the argument ``name`` is not one of ``choices``."""
    if value not in choices:
        raise ValueError(f'{name} must be one of {list(choices)}, got {value!r}')


def image_sides(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return (height, width) in pixels of a nominal image size given as a side or as both sides.

    Raises:
        ValueError: If there are not one or two sides, or if a side is shorter than a patch.
    """
    if not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f'patch_size must be a whole number of pixels, at least 1, got {patch_size!r}')
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if not all(isinstance(side, int) for side in sides):
        raise ValueError(f'img_size must be a side or (height, width) in whole pixels, got {img_size!r}')
    if len(sides) != 2 or min(sides) < patch_size:
        raise ValueError(
            f'img_size must be a side or (height, width) of at least one patch ({patch_size} pixels), got {img_size}'
        )
    return sides


def check_scales(
    rope_scale: Scale | None, delta_scale: Scale | None, token_order: str, pretrain_size: int | None, patch_size: int
) -> None:
    """Check both scales and the image side of the pretraining, which ``'auto'`` and window order need.

    Raises:
        ValueError: If a value is outside its range or if ``pretrain_size`` is missing.
    """
    for name, scale in (('rope_scale', rope_scale), ('delta_scale', delta_scale)):
        if scale not in ('auto', None) and (isinstance(scale, str) or not 0 < scale < math.inf):
            raise ValueError(f"{name} must be a positive number, 'auto' or None, got {scale!r}")
        if scale == 'auto' and pretrain_size is None:
            raise ValueError(f"{name}='auto' needs pretrain_size, the image side of the pretraining in pixels")
    if token_order == 'window' and pretrain_size is None:
        raise ValueError("token_order='window' needs pretrain_size, the image side of the pretraining in pixels")
    if pretrain_size is not None and (pretrain_size < patch_size or pretrain_size % patch_size):
        raise ValueError(f'pretrain_size must be a positive multiple of patch_size ({patch_size}), got {pretrain_size}')


def require_for_feature_map(**arguments: object) -> None:
    """Raise a ValueError if one of the arguments in which published detectors and classifiers differ is None."""
    missing = [name for name, value in arguments.items() if value is None]
    if missing:
        raise ValueError(
            f"out_type='featmap' needs explicit values of {', '.join(arguments)}; missing: {', '.join(missing)}; "
            'the published detectors have '
            "blocks_in_fp32=True, patch_embed_init='kaiming_normal', scale_rule='per_image'"
        )


def is_whole(value: object) -> bool:
    """Return True for an integer that is no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_drop_path_rate(rate: float) -> None:
    """Raise a ValueError if a drop path rate is not a number in [0, 1)."""
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate must be in [0, 1), got {rate!r}')


def check_images(images: Tensor, in_channels: int, smallest_side: int, of_one: str = 'at least one patch') -> None:
    """Check the shape and dtype of a batch of images.

    Args:
        images: Batch that the backbone received.
        in_channels: Number of channels that it expects.
        smallest_side: Height and width that an image must have at least, in pixels.
        of_one: What that size is, for the message.

    Raises:
        TypeError: If the images are not floating point.
        ValueError: If the rank or the number of channels is wrong, or if an image is too small.
    """
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(
            f'expected images of shape (batch, {in_channels}, height, width), got {tuple(images.shape)}; convert them, '
            'or set in_channels of the backbone'
        )
    if not images.is_floating_point():
        raise TypeError(f'expected floating-point images, got {images.dtype}; normalise them first (data_preprocessor)')
    if min(images.shape[-2:]) < smallest_side:
        raise ValueError(
            f'expected images of {of_one} ({smallest_side} x {smallest_side} pixels), '
            f'got {images.shape[-2]} x {images.shape[-1]}; resize or pad them'
        )
