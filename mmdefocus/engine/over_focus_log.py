"""What a training logs of the over-focus of its network: means of scores, and one picture.

Shapes: L tokens, R and W rows and columns of the token grid, H and W height and width of an image in pixels.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from mmdefocus.analysis.attention_maps import attention_maps
from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.gradient_maps import gradient_maps
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.prepared_image import PreparedImage
from mmdefocus.analysis.scores import scores
from mmdefocus.analysis.token_layout import TokenLayout

TILE = 224  # height of a picture's tile in pixels
GAP = 4


def mean_scores(
    network: TokenNetwork, images: Sequence[Tensor], layers: Sequence[int], names: Sequence[str] | None
) -> dict[tuple[str, int], float]:
    """Return means over images and heads by score and layer; scores that the network does not have are left out.

    Args:
        network: The network.
        images: Normalised images, each (1, 3, H, W).
        layers: Numbers of layers.
        names: Names of scores; None for all.
    """
    tables = [scores(network, image, layers) for image in images]
    means = {}
    for name in tables[0].values if names is None else names:
        for row, layer in enumerate(layers):
            value = torch.cat([table.values[name][row] for table in tables]).nanmean().item()
            if math.isfinite(value):
                means[name, layer] = value
    return means


def draw(network: TokenNetwork, images: Sequence[PreparedImage], layers: Sequence[int]) -> np.ndarray:
    """Draw every image, and beside it where the class token looks in every layer; (height, width, 3), RGB, uint8."""
    rows = []
    for image in images:
        height, width = image.picture.shape[:2]
        tile = (max(1, round(TILE * width / height)), TILE)
        picture = cv2.resize(image.picture, tile, interpolation=cv2.INTER_AREA if height > TILE else cv2.INTER_NEAREST)
        tiles = [picture, *(_overlay(picture, values) for values in _maps(network, image.inputs, layers))]
        rows.append(np.concatenate([_framed(tile) for tile in tiles], axis=1))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _maps(network: TokenNetwork, images: Tensor, layers: Sequence[int]) -> list[np.ndarray]:
    """Return one map (R, W) per layer, with a maximum of 1."""
    layouts = _layouts(network, images, layers)
    maps = []
    for layer in layers:
        try:
            query = _query(layouts[layer])
            found = attention_maps(network, images, [layer], queries=[query])[layer][0, :, 0].abs().mean(0)  # (L)
        except AnalysisError:
            found = gradient_maps(network, images, [layer], of='class')[layer][0, 0]
        grid = layouts[layer].to_grid(found.float().cpu())
        maps.append((grid / grid.max().clamp(min=torch.finfo(torch.float32).tiny)).numpy())
    return maps


@torch.no_grad()
def _layouts(network: TokenNetwork, images: Tensor, layers: Sequence[int]) -> dict[int, TokenLayout]:
    with network.record(layers) as records:
        network.run(images)
    size = (images.shape[-2], images.shape[-1])
    return {layer: network.layout(record.inputs, size) for layer, record in records.items()}


def _query(layout: TokenLayout) -> int:
    rows, columns = layout.image_grid
    return layout.token_at(rows // 2, columns // 2) if layout.class_token is None else layout.class_token


def _overlay(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Colour a grey picture by a map (R, W) from 0 to 1."""
    height, width = picture.shape[:2]
    large = cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.applyColorMap((255 * large).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    return (0.35 * grey + 0.65 * colours).astype(np.uint8)


def _framed(tile: np.ndarray) -> np.ndarray:
    return np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
