"""The size of the images that a classifier's config is made for."""

from mmengine.config import Config
from mmengine.registry import MODELS

from mmdefocus.models.backbones.pyramid_backbone import PyramidBackbone

USUAL_SIDE = 224


def is_built_for_images(cfg: Config) -> bool:
    """Return True if ``img_size`` of a classifier's backbone is the size of its images.

    It is not in pyramidal backbones, which take images of any size: they have no ``img_size``, or one that determines
    the sizes of tables.

    Args:
        cfg: Config of a classifier.
    """
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        backbone = registry.get(cfg.model.backbone.type)
    is_pyramid = isinstance(backbone, type) and issubclass(backbone, PyramidBackbone)
    return 'img_size' in cfg.model.backbone and not is_pyramid


def image_size(cfg: Config) -> tuple[int, int]:
    """Return height and width in pixels of the images that a classifier is made for.

    It is ``img_size`` of the backbone where that is the size of the images (:func:`is_built_for_images`). Otherwise it
    is the size that the last ``CenterCrop`` or ``Resize`` of the test pipeline gives to all images, and without one
    224 × 224.

    Args:
        cfg: Config of a classifier.
    """
    sizes = [cfg.model.backbone.img_size] if is_built_for_images(cfg) else []
    for step in reversed(cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline', [])):
        if step.get('crop_size'):
            sizes.append(_height_width(step['crop_size']))
        elif step['type'] == 'Resize' and step.get('scale') and not step.get('keep_ratio'):
            sizes.append(_height_width(step['scale']))
    size = (sizes or [USUAL_SIDE])[0]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _height_width(size: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return a size of MMCV's transforms, a side or (width, height), as a side or (height, width)."""
    return size if isinstance(size, int) else (size[1], size[0])
