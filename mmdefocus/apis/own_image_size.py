"""The size of the images in the pipelines and the network of a config, changed in place."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from .errors import UsageError
from .image_size import image_size, is_built_for_images

_SCALED = ('scale', 'scales', 'crop_size', 'img_scale', 'size')


def set_image_size(cfg: Config, side: int) -> None:
    """Give all steps of the pipelines sizes in proportion to a side, and the network where it is built for a size.

    Args:
        cfg: Config.
        side: Longest side of test images in pixels (detection), or side of the images (classification).

    Raises:
        UsageError: The pipelines have no size.
    """
    classify = cfg.get('default_scope') == 'mmpretrain'
    former = image_size(cfg)[0] if classify else _longest_side(cfg)
    if former is None:
        raise UsageError(
            'image_size has no effect: the test pipeline of the config has no Resize with a scale; set the sizes in '
            'the pipelines of the config'
        )
    changed = False
    for split in ('train', 'val', 'test'):
        for pipeline in _pipelines(cfg.get(f'{split}_dataloader')):
            changed |= _scale_steps(pipeline, side, former)
    for pipeline in [cfg.tta_pipeline] if cfg.get('tta_pipeline') else []:
        _scale_steps(pipeline, side, former)
    if not changed:
        raise UsageError('image_size has no effect: no step of the pipelines has a size; set it in the config')
    if classify and is_built_for_images(cfg):
        cfg.model.backbone.img_size = side


def _pipelines(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if 'pipeline' in node:
            yield node['pipeline']
        for name in ('dataset', 'datasets'):
            yield from _pipelines(node.get(name))
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _pipelines(child)


def _longest_side(cfg: Config) -> int | None:
    for pipeline in _pipelines(cfg.get('val_dataloader')):
        for step in pipeline:
            scale = step.get('scale')
            if step.get('type') == 'Resize' and scale:
                return scale if isinstance(scale, int) else max(scale)
    return None


def _scale_steps(node: Any, side: int, former: int) -> bool:
    changed = False
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _SCALED and value is not None and _is_size(value):
                node[key] = _scaled(value, side, former)
                changed = True
            elif isinstance(value, dict | list | tuple):
                changed |= _scale_steps(value, side, former)
    elif isinstance(node, list | tuple):
        for child in node:
            changed |= _scale_steps(child, side, former)
    return changed


def _is_size(value: Any) -> bool:
    """Return True for whole numbers of pixels; areas of RandomResizedCrop and the like are fractions."""
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_size(one) for one in value)
    return isinstance(value, int) and not isinstance(value, bool)


def _scaled(value: Any, side: int, former: int) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_scaled(one, side, former) for one in value)
    return max(round(value * side / former), 1)
