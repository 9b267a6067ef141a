"""What a detector expects of the sizes and the number of objects: strides, size of test images, number of boxes."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

_SIDE = 512  # pixels; a multiple of all usual strides


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a detector.

    Attributes:
        strides: Pixels between the cells of the feature maps, the finest first.
        image_size: Width and height in pixels of the box into which test images are scaled; None if the test pipeline
            does not say.
        max_objects: Most objects that it predicts per image; None if the config does not say.
    """

    strides: tuple[int, ...]
    image_size: tuple[int, int] | None
    max_objects: int | None


def model_sizes(cfg: Config) -> ModelSizes:
    """Return the sizes of a detector.

    The network runs on the meta device, which computes shapes only.

    Args:
        cfg: Config of a detector of MMDetection.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), torch.device('meta'), torch.no_grad():
        model = MODELS.build(copy.deepcopy(cfg.model)).eval()
        maps = model.extract_feat(torch.empty(1, 3, _SIDE, _SIDE))
    strides = tuple(sorted(round(_SIDE / level.shape[-1]) for level in maps))
    test = cfg.model.get('test_cfg') or {}
    most = [test.get('max_per_img'), (test.get('rcnn') or {}).get('max_per_img'), cfg.model.get('num_queries')]
    limits = [int(one) for one in most if one]
    return ModelSizes(strides, _test_scale(cfg), min(limits, default=None))


def _test_scale(cfg: Config) -> tuple[int, int] | None:
    pipeline = (cfg.get('test_dataloader') or {}).get('dataset', {}).get('pipeline', [])
    scales = [step['scale'] for step in _steps(pipeline) if step.get('type') == 'Resize' and step.get('scale')]
    if not scales:
        return None
    scale = scales[0]
    return (scale, scale) if isinstance(scale, int) else (scale[0], scale[1])


def _steps(pipeline: Any) -> Iterator[dict[str, Any]]:
    return (step for step in pipeline if isinstance(step, dict))
