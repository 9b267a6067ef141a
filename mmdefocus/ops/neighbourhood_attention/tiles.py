"""Neighbourhood attention by tiles of queries: the PyTorch backend.

A tile attends to the union of its windows, as a dense product with a mask: more products than the windows need, but
matrix products, which are several times as fast as products of shifted maps. The map is divided into strips, one per
column of tiles; a loop goes down all strips, so only the logits of one row of tiles exist at a time, and memory grows
linearly with the number of pixels.

Shapes: B batch, h heads, H and W rows and columns of the map, d channels of a head, K side of the neighbourhood, N
tiles of an axis or strips, T and S rows and columns of queries of a tile, U and V rows and columns of its keys.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdefocus.ops.kernel_limits import ceil_div

# Largest rows and columns of queries of a tile, the fastest on a CPU for K = 7 on maps from 14 x 14 to 200 x 334.
TILE = (4, 8)
# Part of an axis from which on fewer and larger products are faster than fewer keys.
MOST = 0.7


class Axis(NamedTuple):
    """Tiles of one axis.

    Attributes:
        queries: T, queries of a tile; the last tile may go beyond the map.
        keys: U, keys of a tile.
        starts: First key of every tile.
        offsets: Index of every query and key into the bias, (N, T, U).
        inside: Whether the key is in the window of the query, (N, T, U).
    """

    queries: int
    keys: int
    starts: list[int]
    offsets: Tensor
    inside: Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, scale: float) -> Tensor:
    """Compute the operator ``mmdefocus::neighbourhood_attention``; see there for arguments and results."""
    rows, columns = _axes(q, kernel_size)
    queries = _query_strips(q, rows, columns).mul_(scale)
    keys, values = _key_strips(k, columns), _key_strips(v, columns)
    out = torch.empty_like(queries)
    for tiles, tile_bias in _rows_of_tiles(rows, columns, bias):
        for tile in tiles:
            key, value = (_tile_keys(x, rows, tile) for x in (keys, values))
            weights = _weights(_tile_queries(queries, rows, tile), key, tile_bias)
            torch.bmm(weights, value, out=_tile_queries(out, rows, tile))
    return _join_query_strips(out, q)


def attend_backward(
    grad_output: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kernel_size: int, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of q, k, v and bias; the weights are recomputed."""
    rows, columns = _axes(q, kernel_size)
    queries, grads = _query_strips(q, rows, columns).mul_(scale), _query_strips(grad_output, rows, columns)
    keys, values = _key_strips(k, columns), _key_strips(v, columns)
    grad_queries, grad_keys, grad_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
    grad_bias = torch.zeros_like(bias)
    for tiles, tile_bias in _rows_of_tiles(rows, columns, bias):
        grad_tile_bias = torch.zeros_like(tile_bias)
        for tile in tiles:
            query, grad = (_tile_queries(x, rows, tile) for x in (queries, grads))
            key, value = (_tile_keys(x, rows, tile) for x in (keys, values))
            weights = _weights(query, key, tile_bias)
            grad_weights = grad @ value.mT
            grad_logits = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            torch.bmm(grad_logits, key, out=_tile_queries(grad_queries, rows, tile))
            _tile_keys(grad_keys, rows, tile).baddbmm_(grad_logits.mT, query)
            _tile_keys(grad_values, rows, tile).baddbmm_(weights.mT, grad)
            grad_tile_bias += grad_logits.unflatten(0, (-1, *tile_bias.shape[:2])).sum(0)
        grad_bias += _sum_by_offset(grad_tile_bias, rows, tiles[0], columns, kernel_size)
    grad_q = _join_query_strips(grad_queries.mul_(scale), q)
    return grad_q, _add_key_strips(grad_keys, columns, k), _add_key_strips(grad_values, columns, v), grad_bias


def _axes(q: Tensor, kernel_size: int) -> tuple[Axis, Axis]:
    rows, columns = (_axis(length, largest, kernel_size) for length, largest in zip(q.shape[2:4], TILE, strict=True))
    return rows, columns


def _axis(length: int, largest: int, kernel_size: int) -> Axis:
    """Divide an axis into tiles of equal size, or into one if each sees most of the axis anyway."""
    size = ceil_div(length, ceil_div(length, largest))
    if size + kernel_size - 1 >= MOST * length:
        size = length
    keys = min(size + kernel_size - 1, length)
    tiles = torch.arange(ceil_div(length, size))[:, None]  # (N, 1)
    first_key = (tiles * size - kernel_size // 2).clamp(0, length - keys)
    query = (tiles * size + torch.arange(size))[:, :, None]  # (N, T, 1)
    key = (first_key + torch.arange(keys))[:, None]  # (N, 1, U)
    start = (query - kernel_size // 2).clamp(0, length - kernel_size)
    inside = (key >= start) & (key < start + kernel_size)
    offsets = (key - query + kernel_size - 1).clamp(0, 2 * kernel_size - 2)
    return Axis(size, keys, first_key.flatten().tolist(), offsets, inside)


def _query_strips(x: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Divide (B, h, H, W, d) into strips, padded with zeros: (B, h, N, rows, S, d)."""
    strips, height = len(columns.starts), len(rows.starts) * rows.queries
    padded = F.pad(x, (0, 0, 0, strips * columns.queries - x.shape[3], 0, height - x.shape[2]))
    return padded.unflatten(3, (strips, columns.queries)).movedim(3, 2).contiguous()


def _join_query_strips(strips: Tensor, like: Tensor) -> Tensor:
    """Join (B, h, N, rows, S, d) to a contiguous (B, h, H, W, d)."""
    return strips.movedim(2, 3).flatten(3, 4)[:, :, : like.shape[2], : like.shape[3]].contiguous()


def _key_strips(x: Tensor, columns: Axis) -> Tensor:
    """Copy the columns that each strip attends to from (B, h, H, W, d): (B, h, N, H, V, d)."""
    return torch.stack([x[:, :, :, start : start + columns.keys] for start in columns.starts], dim=2)


def _add_key_strips(strips: Tensor, columns: Axis, like: Tensor) -> Tensor:
    """Add up gradients of strips, (B, h, N, H, V, d), to those of the map, (B, h, H, W, d)."""
    total = torch.zeros_like(like, memory_format=torch.contiguous_format)
    for strip, start in zip(strips.unbind(2), columns.starts, strict=True):
        total[:, :, :, start : start + columns.keys] += strip
    return total


def _tile_queries(strips: Tensor, rows: Axis, tile: int) -> Tensor:
    """View the queries of one row of tiles, (B h N, T S, d)."""
    return strips.narrow(3, tile * rows.queries, rows.queries).flatten(3, 4).flatten(0, 2)


def _tile_keys(strips: Tensor, rows: Axis, tile: int) -> Tensor:
    """View the keys of one row of tiles, (B h N, U V, d)."""
    return strips.narrow(3, rows.starts[tile], rows.keys).flatten(3, 4).flatten(0, 2)


def _weights(query: Tensor, key: Tensor, tile_bias: Tensor) -> Tensor:
    """Return the weights of one row of tiles, (B h N, T S, U V)."""
    batch = query.shape[0] // (tile_bias.shape[0] * tile_bias.shape[1])
    logits = tile_bias.repeat(batch, 1, 1, 1).flatten(0, 1)
    return logits.baddbmm_(query, key.mT).softmax(-1)


def _rows_of_tiles(rows: Axis, columns: Axis, bias: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the rows of tiles, those with the same windows together, with their bias and mask (h, N, T S, U V)."""
    x_index, x_inside = (
        x[:, None, :, None].to(bias.device) for x in (columns.offsets, columns.inside)
    )  # (N, 1, S, 1, V)
    windows = list(zip(rows.offsets.tolist(), rows.inside.tolist(), strict=True))
    for _, group in groupby(range(len(windows)), windows.__getitem__):
        tiles = list(group)
        y_index, y_inside = (x[tiles[0], :, None, :, None].to(bias.device) for x in (rows.offsets, rows.inside))
        outside = ~(y_inside & x_inside)  # (N, T, S, U, V)
        yield tiles, bias[:, y_index, x_index].masked_fill_(outside, -torch.inf).flatten(4).flatten(2, 3)


def _sum_by_offset(grad: Tensor, rows: Axis, tile: int, columns: Axis, kernel_size: int) -> Tensor:
    """Add up the gradients of logits, (h, N, T S, U V), that share an offset: (h, 2K - 1, 2K - 1).

    Products with one-hot matrices: index_add_ has no fixed order on a GPU.
    """
    by_row, by_column = (
        F.one_hot(index, 2 * kernel_size - 1).to(grad) for index in (rows.offsets[tile], columns.offsets)
    )  # (T, U, 2K - 1) and (N, S, V, 2K - 1)
    grad = grad.unflatten(3, (rows.keys, -1)).unflatten(2, (rows.queries, -1))  # (h, N, T, S, U, V)
    return torch.einsum('htux,tuy->hyx', torch.einsum('hntsuv,nsvx->htux', grad, by_column), by_row)
