"""Networks of timm with their weights and their preprocessing."""

import difflib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.runner import CheckpointLoader
from PIL import Image
from torch import Tensor, nn

from mmdefocus.models.checkpoint.fit import load_and_describe_misfit

from .errors import UsageError


def build_timm(name: str, checkpoint: str | None, random_weights: bool, size: int | None) -> nn.Module:
    """Build a network of timm and load its weights.

    Args:
        name: Name of timm, with or without the tag of pretrained weights.
        checkpoint: Path or URL of a state dict with all tensors of the network, and no other; by default timm's
            pretrained weights, which are downloaded once.
        random_weights: Keep random weights if there is no ``checkpoint``.
        size: Side of the input in pixels, if not the network's own.

    Returns:
        The network.

    Raises:
        UsageError: timm has no such network, no weights of it can be loaded, or it cannot take images of this size.
    """
    import timm

    if not timm.is_model(name) or ('.' in name and name not in timm.list_pretrained()):
        raise UsageError(f"timm has no network '{name}'{_suggest(name, timm.list_models(), timm.list_pretrained())}")
    if checkpoint is not None or random_weights:
        model = timm.create_model(name)
    else:
        try:
            model = timm.create_model(name, pretrained=True)
        except Exception as error:
            raise UsageError(
                f"timm cannot load pretrained weights of '{name}' ({_first_line(error)}); name a file, "
                f'timm:{name}@weights.pth, or use --random-weights'
            ) from error
    if checkpoint is not None:
        misfit = load_and_describe_misfit(model, CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
        if misfit is not None:
            raise UsageError(f'{checkpoint} does not fit timm:{name}: {misfit}; name the network of this file')
    if size is not None and getattr(model, 'pretrained_cfg', {}).get('fixed_input_size'):
        _set_size(model, name, size)
    return model


def timm_preprocessing(model: nn.Module, size: int | None) -> tuple[Callable[[np.ndarray], Tensor], Tensor, Tensor]:
    """Return timm's own evaluation transform for a network.

    Args:
        model: Network of timm.
        size: Side of the central square that the network sees, scaled to this many pixels; None is timm's default.

    Returns:
        Function from an image, (H, W, 3), BGR, uint8, to the input (3, height, width); mean and standard deviation of
        its normalisation, (3, 1, 1).
    """
    from timm.data import create_transform, resolve_model_data_config

    config: dict[str, Any] = resolve_model_data_config(model)
    if size is not None:
        config |= dict(input_size=(3, size, size), crop_pct=1.0, crop_mode='center')
    transform = create_transform(**config, is_training=False)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ('mean', 'std'))
    return lambda image: transform(Image.fromarray(image[..., ::-1].copy())), mean, std


def timm_classes(model: nn.Module) -> list[str] | None:
    """Return the names of ImageNet-1k's classes for a network with 1000 classes, else None."""
    from timm.data import ImageNetInfo

    if getattr(model, 'num_classes', None) != 1000:
        return None
    info = ImageNetInfo()
    return [info.index_to_description(index).split(',')[0] for index in range(1000)]


def _set_size(model: nn.Module, name: str, size: int) -> None:
    change = getattr(model, 'set_input_size', None)
    if change is None:
        raise UsageError(f'timm:{name} takes images of one size only; omit --size')
    try:
        change(img_size=(size, size))
    except Exception as error:
        raise UsageError(f'timm:{name} cannot take images of {size} x {size} ({error}); change --size') from error


def _suggest(name: str, models: list[str], pretrained: list[str]) -> str:
    architecture, dot, _ = name.partition('.')
    if dot and architecture in models:  # the tag is wrong
        return f'; it has {", ".join(known for known in pretrained if known.startswith(f"{architecture}."))}'
    close = [known for known in models if known.startswith(architecture)][:5]
    close = close or difflib.get_close_matches(architecture, models, n=5)
    return f'; did you mean {", ".join(close)}?' if close else '; timm.list_models() lists its networks'


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {(str(error).strip().splitlines() or ["no reason is given"])[0]}'
