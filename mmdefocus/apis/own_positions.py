"""Two-stage detectors of the DETR family choose their queries among the positions of the feature maps."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdefocus.datasets.prepared.source_data import PreparedData
from mmdefocus.engine.largest_batch import Size, largest_images

from .errors import UsageError
from .own_image_size import set_image_size

_LARGEST = 4096  # pixels; larger sides are not proposed


def check_positions(cfg: Config, data: PreparedData) -> None:
    """Compare the number of positions of the smallest images with the number of queries.

    The network runs on the meta device, which computes shapes only. Other detectors are not checked.

    Args:
        cfg: Config of a training on ``data``.
        data: Prepared detection data.

    Raises:
        UsageError: An image alone in its batch has fewer positions than the model has queries, so that training or
            evaluation would end with an error. The message has the smallest ``image_size`` that works. Or the model
            must return more boxes per image than it predicts.
    """
    queries = cfg.model.get('num_queries')
    if not queries or not cfg.model.get('as_two_stage'):
        return
    _check_predictions(cfg, queries)
    positions = _Positions(cfg)
    sizes = {name: _sizes(split.ann_file) for name, split in data.splits.items()}
    try:
        split, size, found = min(_fewest(cfg, sizes, positions), key=lambda one: one[2])
    except NotImplementedError:  # an operator of a user's network that computes no shapes
        return
    if found >= queries:
        return
    remedies = [
        f'lower model.num_queries to {found} with cfg_options (--cfg-options model.num_queries={found}), and '
        'model.test_cfg.max_per_img with it'
    ]
    side = _smallest_side(cfg, sizes, positions, queries)
    if side is not None:
        remedies.insert(0, f'set image_size={side} (--image-size {side}), the smallest that works')
    raise UsageError(
        f'the model chooses its {queries} queries among the positions of an image, and an image of {split}, '
        f'{size[1]}x{size[0]} pixels after resizing, has {found}; {", or ".join(remedies)}'
    )


def _check_predictions(cfg: Config, queries: int) -> None:
    most = (cfg.model.get('test_cfg') or {}).get('max_per_img')
    classes = (cfg.model.get('bbox_head') or {}).get('num_classes')
    if most and isinstance(classes, int) and most > queries * classes:
        raise UsageError(
            f'{queries} queries for {classes} classes make {queries * classes} predictions, and '
            f'model.test_cfg.max_per_img={most} asks for more; set it to at most {queries * classes} with cfg_options'
        )


class _Positions:
    """Numbers of positions of an image by its size."""

    def __init__(self, cfg: Config) -> None:
        self._scope = cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(self._scope), torch.device('meta'):
            self._model: Any = MODELS.build(copy.deepcopy(cfg.model)).eval()
        self._divisor = (cfg.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
        self._known: dict[Size, int] = {}

    def __call__(self, size: Size) -> int:
        height, width = (-(-side // self._divisor) * self._divisor for side in size)
        if (height, width) not in self._known:
            with DefaultScope.overwrite_default_scope(self._scope), torch.device('meta'), torch.no_grad():
                maps = self._model.extract_feat(torch.empty(1, 3, height, width))
            self._known[height, width] = sum(level.shape[-2] * level.shape[-1] for level in maps)
        return self._known[height, width]


def _fewest(cfg: Config, sizes: Mapping[str, set[Size]], positions: _Positions) -> Iterator[tuple[str, Size, int]]:
    """Yield the size with the fewest positions of every split, behind its transforms."""
    for name, originals in sizes.items():
        resized = largest_images(list(_steps(cfg[f'{name}_dataloader'].dataset)), originals.copy).sizes
        size = min(_minimal(resized), key=positions)
        yield name, size, positions(size)


def _smallest_side(cfg: Config, sizes: Mapping[str, set[Size]], positions: _Positions, queries: int) -> int | None:
    def fits(side: int) -> bool:
        tried = copy.deepcopy(cfg)
        set_image_size(tried, side)
        return min(found for _, _, found in _fewest(tried, sizes, positions)) >= queries

    try:
        low, high = 8, 16
        while not fits(high):
            low, high = high, 2 * high
            if high > _LARGEST:
                return None
    except UsageError:  # the pipelines have no size
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _minimal(sizes: Iterable[Size]) -> list[Size]:
    """Return the sizes of which no other one is smaller in both directions."""
    kept: list[Size] = []
    for height, width in sorted(sizes):
        if not kept or width < kept[-1][1]:
            kept.append((height, width))
    return kept


def _steps(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if 'dataset' in dataset:
        yield from _steps(dataset['dataset'])
    yield from dataset.get('pipeline', [])


def _sizes(ann_file: Any) -> set[Size]:
    images = json.loads(ann_file.read_bytes())['images']
    return {(image['height'], image['width']) for image in images}
