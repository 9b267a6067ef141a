"""What the pictures of a report show: one kind of map of one layer, on a grid of cells.

Shapes: L tokens, K heads, Q query tokens, R and W rows and columns of cells.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..report_data import LayerReport
from .selection import CLASS_TOKEN, Place, image_cells, nearest_query


@dataclass(frozen=True)
class CellMap:
    """Values of cells.

    Attributes:
        values: Shares of the sum of magnitudes, (R, W); of every row of a matrix by itself.
        visible: Which cells the query token may depend on, (R, W), bool.
        query: Row and column of the query token; None without one in the image.
        outside: Share of class tokens, registers and padding, which have no cell.
    """

    values: Tensor
    visible: Tensor
    query: tuple[int, int] | None = None
    outside: float = 0.0


@dataclass(frozen=True)
class Kind:
    """One kind of map.

    Attributes:
        name: Name in headings and, with hyphens, in file names.
        explanation: How it was computed, for the heading.
        has_query: Whether it depends on a query token.
        make: Returns the map of a layer for a query token's place, or the reason why there is none.
    """

    name: str
    explanation: str
    has_query: bool
    make: Callable[[LayerReport, Place], CellMap | str]
    is_matrix: bool = False
    is_signed: bool = False


def _matrix(layer: LayerReport, _: Place) -> CellMap | str:
    length = layer.layout.length
    if layer.attention is not None and layer.queries == list(range(length)):
        matrix = layer.attention.abs().mean(0)  # (L, L)
    elif layer.matrix is not None:
        matrix = layer.matrix
    else:
        return layer.attention_note or 'no attention'
    visible = torch.ones(matrix.shape, dtype=torch.bool)
    shares = _shares(matrix)
    if matrix.shape[0] == length:  # padding is left out
        kept = (image_cells(layer.layout) != -2).nonzero().flatten()
        shares, visible = shares[kept][:, kept], visible[kept][:, kept]
    return CellMap(shares, visible.tril() if layer.layout.causal else visible)


def _attention(layer: LayerReport, place: Place) -> CellMap | str:
    if layer.attention is None:
        return layer.attention_note or 'no attention'
    return _row(layer, layer.attention.abs().mean(0), layer.queries, place)


def _signed_attention(layer: LayerReport, place: Place) -> CellMap | str:
    if layer.attention is None:
        return layer.attention_note or 'no attention'
    return _row(layer, layer.attention.mean(0), layer.queries, place)


def _rollout(layer: LayerReport, place: Place) -> CellMap | str:
    return _row(layer, layer.rollout, layer.queries, place, layer.attention_note)


def _gradient(layer: LayerReport, place: Place) -> CellMap | str:
    return _row(layer, layer.gradient, layer.gradient_queries, place)


def _class_gradient(layer: LayerReport, _: Place) -> CellMap | str:
    if layer.class_gradient is None:
        return 'no class logit'
    shares = _shares(layer.class_gradient)
    values = layer.layout.to_grid(shares)
    return CellMap(values, torch.ones(values.shape, dtype=torch.bool), outside=_outside(layer, shares))


def _receptive_field(layer: LayerReport, place: Place) -> CellMap | str:
    index = nearest_query(layer.layout, layer.gradient_queries, place)
    if layer.receptive_fields is None:
        return 'not computed'
    if index is None:
        return _no_query(place)
    field = layer.receptive_fields[index]  # (R, W)
    total = field.abs().sum()
    query = layer.gradient_queries[index]
    if field.shape == layer.layout.image_grid:
        return CellMap(field / total if total > 0 else field, _visible(layer, query), _cell(layer, query))
    return CellMap(field / total if total > 0 else field, torch.ones(field.shape, dtype=torch.bool))


def _row(layer: LayerReport, rows: Tensor | None, queries: list[int], place: Place, note: str = '') -> CellMap | str:
    if rows is None:
        return note or 'not computed'
    index = nearest_query(layer.layout, queries, place)
    if index is None:
        return _no_query(place)
    query, shares = queries[index], _shares(rows[index])
    visible, cell = _visible(layer, query), _cell(layer, query)
    return CellMap(layer.layout.to_grid(shares), visible, cell, _outside(layer, shares))


def _no_query(place: Place) -> str:
    return 'no class token enters this layer' if place == CLASS_TOKEN else 'no such query token'


def _shares(rows: Tensor) -> Tensor:
    """Divide rows (…, L) by their sums of magnitudes; rows of zeros stay so."""
    totals = rows.abs().sum(-1, keepdim=True)
    return rows / totals.where(totals > 0, 1)


def _outside(layer: LayerReport, shares: Tensor) -> float:
    return float(shares[image_cells(layer.layout) < 0].abs().sum())


def _visible(layer: LayerReport, query: int) -> Tensor:
    tokens = torch.arange(layer.layout.length)
    seen = tokens <= query if layer.layout.causal else tokens >= 0
    return layer.layout.to_grid(seen.to(torch.uint8)).bool()


def _cell(layer: LayerReport, query: int) -> tuple[int, int] | None:
    cell = int(image_cells(layer.layout)[query])
    return divmod(cell, layer.layout.image_grid[1]) if cell >= 0 else None


KINDS = (
    Kind('attention matrix', 'mean of |A| over heads; query ↓, key →', False, _matrix, is_matrix=True),
    Kind('attention row', 'mean of |A| over heads', True, _attention),
    Kind('signed attention row', 'mean of A over heads', True, _signed_attention, is_signed=True),
    Kind('rollout', 'product of row-normalised |A| + I, Abnar and Zuidema 2020', True, _rollout),
    Kind('gradient', 'norm of ∂‖query token after the layer‖ / ∂token before it', True, _gradient),
    Kind('class gradient', 'norm of ∂ class logit / ∂token before the layer', False, _class_gradient),
    Kind('receptive field', 'contribution of the image to the query token', True, _receptive_field),
)
