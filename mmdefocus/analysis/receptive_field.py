"""Effective receptive fields, fit for one-sided ones, and the theoretical fields of causal networks.

Shapes: B images, Q query tokens, R and W rows and columns of the token grid of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone

from .errors import AnalysisError
from .gradient_maps import check_queries
from .layer_taps import check_finite, check_images, differentiable, taps
from .networks import TokenNetwork, open_network
from .token_layout import OUTSIDE, TokenLayout, grid_queries

SHARES = (0.2, 0.3, 0.5, 0.99)
_SIDE = 3  # rows and columns of the default queries


@dataclass(frozen=True)
class ReceptiveField:
    """Effective receptive fields of query tokens of one layer.

    Attributes:
        queries: Positions of the query tokens in the sequence that leaves the layer.
        fields: Mean over the images of the field of every query, (Q, R, W), float64, on the CPU, at least 0. Not
            normalised; show log10(x + 1), as RepLKNet does, or x over its maximum.
        shares: For each share of the mass of a field, mean and standard deviation, over images and queries, of the area
            of the smallest set of cells with at least that share, as a fraction of the cells that the query can see.
        image_shares: The same as a fraction of all cells of the image, to compare networks of different causality.
        relative: Mean of the fields aligned at their query, (2R - 1, 2W - 1), with the query in the middle: the value
            at (R - 1 + r, W - 1 + w) is the mean over the queries that have a cell r rows below and w columns to the
            right, and 0 where none has. None if no query has a place in the image.
    """

    queries: list[int]
    fields: Tensor
    shares: dict[float, tuple[float, float]]
    image_shares: dict[float, tuple[float, float]]
    relative: Tensor | None


def receptive_field(
    model: nn.Module | TokenNetwork,
    images: Tensor,
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
) -> dict[int, ReceptiveField]:
    """Compute effective receptive fields of the tokens that leave layers.

    As in RepLKNet (arXiv 2203.06717, appendix on the effective receptive field): the gradient of the sum over the
    channels of a token with respect to the pixels, its negative part removed, summed over the channels of the image.
    Here, it is also summed over the pixels of each cell of the token grid that enters layer 0: the patches of a plain
    network, 4 × 4 pixels of a ResNet or Swin Transformer. RepLKNet measures the smallest *square* around the token
    with a share of the mass. The field of a causal network is one-sided, so that no square fits: ``shares`` measures
    the smallest *set* of cells.

    Each query costs a backward pass per image through the layers up to its own. The activations of one image are kept.

    Args:
        model: A model, or the view of one.
        images: Normalised images (B, 3, height, width) of the model's type, on its device.
        layers: Indices of layers; None for all. Negative numbers count from the last.
        queries: Positions of query tokens in the sequence that leaves the layer. None for the class token, if there is
            one, and the cells at 1/6, 1/2 and 5/6 of the rows and columns.

    Returns:
        Fields by layer.

    Raises:
        AnalysisError: A layer or query does not exist, the images do not fit, a gradient is not finite, an output does
            not depend on any image, or the output of a causal network depends on later tokens.
    """
    network = open_network(model)
    indices = list(dict.fromkeys(network.select(layers)))
    check_images(images)
    measured: dict[int, list[_Measured]] = {index: [] for index in indices}
    for image in images.split(1):
        for index, result in _measure(network, image, indices, queries).items():
            measured[index].append(result)
    return {index: _summary(network, index, measured[index]) for index in indices}


def theoretical_field(layout: TokenLayout, query: int) -> Tensor:
    """Return the cells of the image (R, W) that a token may depend on by causality alone, as booleans.

    In a causal network, they hold the tokens up to the query in the order of the sequence: the rows above it in raster
    order, the windows before it in window order. The field of a non-causal network is the whole image.

    Raises:
        AnalysisError: The query is outside the sequence.
    """
    check_queries([query], layout.length)
    positions = torch.arange(layout.length)
    return layout.to_grid(positions <= query if layout.causal else torch.ones_like(positions, dtype=torch.bool))


@dataclass(frozen=True)
class _Measured:
    """Fields (Q, R, W) of one image, the cells that the queries can see (Q, R, W), and the cells of the queries."""

    queries: list[int]
    fields: Tensor
    visible: Tensor
    cells: list[tuple[int, int] | None]


def _measure(
    network: TokenNetwork, image: Tensor, indices: list[int], queries: Sequence[int] | None
) -> dict[int, _Measured]:
    size = (image.shape[-2], image.shape[-1])
    layouts: list[TokenLayout] = []
    left: dict[int, Tensor] = {}

    def enter(index: int, tokens: Tensor) -> Tensor:
        if index == 0:
            layouts.append(network.layout(tokens, size))
        return tokens

    def leave(index: int, tokens: Tensor) -> Tensor:
        left[index] = tokens
        return tokens.clone()

    results = {}
    with differentiable(network.model):
        image = image.detach().clone().requires_grad_()
        with taps(network, sorted({0, *indices}), enter, leave):
            network.run(image)
        for index in indices:
            if index not in left:
                raise AnalysisError(f'layer {index} ({network.layer_names[index]}) did not run; leave it out of layers')
            layout = network.layout(left[index], size)
            chosen = grid_queries(layout, _SIDE) if queries is None else list(check_queries(queries, layout.length))
            tokens = network.tokens(left[index]).sum(dim=-1)  # (1, L)
            fields = []
            for query in chosen:
                (gradient,) = torch.autograd.grad(tokens[0, query], image, retain_graph=True, materialize_grads=True)
                pixels = check_finite(gradient[0], network, index).cpu().double().clamp(min=0).sum(dim=0)
                fields.append(_pooled(network, pixels, layouts[0].image_grid))
            visible = [theoretical_field(layouts[0], query if layout.causal else 0) for query in chosen]
            results[index] = _Measured(
                chosen,
                torch.stack(fields),
                torch.stack(visible),
                [_cell(layout, query, layouts[0].image_grid) for query in chosen],
            )
    return results


def _pooled(network: TokenNetwork, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum over the pixels (height, width) of every cell of the grid, (R, W)."""
    for dim, cells in enumerate(grid):
        positions, size = torch.arange(pixels.shape[dim]), pixels.shape[dim]
        # The last patch of a backbone of mmdefocus may be cut; other grids divide the image evenly.
        patch = network.backbone.patch_size if isinstance(network.backbone, DefocusBackbone) else None
        cell = positions // patch if patch else positions * cells // size
        shape = (cells, *pixels.shape[1:]) if dim == 0 else (pixels.shape[0], cells)
        pixels = pixels.new_zeros(shape).index_add(dim, cell, pixels)
    return pixels


def _cell(layout: TokenLayout, query: int, grid: tuple[int, int]) -> tuple[int, int] | None:
    """Return the cell of the grid at the middle of a token, whose layout may be coarser; None outside the image."""
    cell = int(layout.cells[query])
    row, column = divmod(cell, layout.grid[1])
    rows, columns = layout.image_grid
    if cell == OUTSIDE or row >= rows or column >= columns:
        return None
    return (2 * row + 1) * grid[0] // (2 * rows), (2 * column + 1) * grid[1] // (2 * columns)


def _summary(network: TokenNetwork, index: int, results: list[_Measured]) -> ReceptiveField:
    fields = torch.stack([result.fields for result in results])  # (B, Q, R, W)
    visible = results[0].visible
    if fields[:, ~visible].any():
        raise AnalysisError(
            f'a token that leaves layer {index} ({network.layer_names[index]}) depends on later tokens, but '
            f'{type(network.backbone).__name__} counts as causal; set its attribute causal to False'
        )
    flat = fields.flatten(2)  # (B, Q, R · W)
    total = flat.sum(dim=-1, keepdim=True)
    if not total.any():
        raise AnalysisError(
            f'no query token that leaves layer {index} ({network.layer_names[index]}) depends on the images'
        )
    accumulated = flat.sort(dim=-1, descending=True).values.cumsum(dim=-1)
    shares, image_shares = {}, {}
    for share in SHARES:
        counts = 1 + (accumulated < share * total).sum(dim=-1).double()  # (B, Q)
        found = total.squeeze(-1) > 0  # a token may be 0 behind a ReLU; it has no field
        shares[share] = _mean_std((counts / visible.flatten(1).sum(dim=-1))[found])
        image_shares[share] = _mean_std((counts / flat.shape[-1])[found])
    mean = fields.mean(dim=0)
    return ReceptiveField(results[0].queries, mean, shares, image_shares, _relative(mean, results[0].cells))


def _mean_std(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std(correction=0).item()


def _relative(fields: Tensor, cells: Sequence[tuple[int, int] | None]) -> Tensor | None:
    rows, columns = fields.shape[1:]
    total = fields.new_zeros(2 * rows - 1, 2 * columns - 1)
    count = torch.zeros_like(total)
    placed = [(field, cell) for field, cell in zip(fields, cells, strict=True) if cell is not None]
    for field, (row, column) in placed:
        part = (slice(rows - 1 - row, 2 * rows - 1 - row), slice(columns - 1 - column, 2 * columns - 1 - column))
        total[part] += field
        count[part] += 1
    return total / count.clamp(min=1) if placed else None
