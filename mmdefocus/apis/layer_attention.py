"""Attention of layers as a report shows it, collected from blocks of rows, so that long sequences need no K x L x L.

Shapes: K heads or groups of channels, Q query tokens, L tokens, T rows of a block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdefocus.analysis.attention_maps import attention_blocks
from mmdefocus.analysis.errors import NoAttention
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.rollout import MAX_TOKENS, rollout

MATRIX_SIDE = 256
MOST_VALUES = 2**22  # of the rows of a layer, 16 MiB


@dataclass
class LayerAttention:
    """Attention of one layer for one image, float32 on the CPU.

    Attributes:
        rows: Signed rows of the queries, (K, Q, L); if K · Q · L is above ``MOST_VALUES``, neighbouring heads are
            averaged to the largest divisor of K that is not.
        heads: K before that.
        matrix: Mean of the heads' absolute maps; longer sides than ``MATRIX_SIDE`` are averages over areas.
        mean: The same mean, (L, L), for the rollout; None for more than ``MAX_TOKENS`` tokens.
    """

    rows: Tensor
    heads: int
    matrix: Tensor
    mean: Tensor | None


def collect_attention(
    network: TokenNetwork,
    images: Tensor,
    queries: Mapping[int, Sequence[int]],
    reduce: str = 'group',
    include: Sequence[str] = (),
) -> tuple[dict[int, LayerAttention], dict[int, str]]:
    """Compute the attention of layers.

    Args:
        network: The network.
        images: One normalised image (1, 3, height, width).
        queries: By layer, the positions of the tokens whose rows are kept; the layers' maps are computed.
        reduce: ``'group'`` or ``'mean'``, as for :func:`~mmdefocus.analysis.attention_maps.attention_blocks`.
        include: As for the same function.

    Returns:
        The attention of the layers that have some, and why the others have none.
    """
    found: dict[int, LayerAttention] = {}
    notes: dict[int, str] = {}
    # The maps of other networks arrive by whole layers, all of which would be in memory.
    together = [list(queries)] if network.is_defocus else [[layer] for layer in queries]
    for pending in together:
        while pending:
            try:
                _collect(network, images, {layer: queries[layer] for layer in pending}, reduce, include, found)
                break
            except NoAttention as error:
                notes[error.layer] = str(error)
            pending = [layer for layer in pending if layer not in found and layer not in notes]
    return found, notes


def _collect(
    network: TokenNetwork,
    images: Tensor,
    queries: Mapping[int, Sequence[int]],
    reduce: str,
    include: Sequence[str],
    found: dict[int, LayerAttention],
) -> None:
    """Add the attention of layers to ``found`` until one has none."""
    collector: _Collector | None = None
    for layer, start, rows in attention_blocks(network, images, list(queries), reduce, include):
        if collector is None or collector.layer != layer:
            collector = _Collector(layer, queries[layer], rows)
        collector.add(start, rows[0].float().cpu())
        if collector.complete:
            found[layer] = collector.result()


def rollouts(attention: Mapping[int, LayerAttention], layers: Sequence[int]) -> tuple[dict[int, Tensor], str]:
    """Multiply the mean maps of the layers from 0 up to each of ``layers``, as Abnar and Zuidema do.

    Returns:
        Rollouts (L, L) by layer, and why some are missing; empty if none is.
    """
    maps: dict[int, Tensor] = {}
    reason = ''
    for layer in range(max(layers) + 1):
        mean = attention[layer].mean if layer in attention else None
        if mean is None:
            reason = f'no rollout from layer {layer} on: it has no attention'
            break
        if maps and len(mean) != maps[0].shape[-1]:
            reason = f'no rollout from layer {layer} on: {len(mean)} tokens enter it, {maps[0].shape[-1]} enter layer 0'
            break
        maps[layer] = mean[None, None]
    found = rollout(maps)
    return {layer: found[layer][0] for layer in layers if layer in found}, reason


class _Collector:
    """Rows, matrix and mean of one layer from its blocks."""

    def __init__(self, layer: int, queries: Sequence[int], first: Tensor) -> None:
        _, self.heads, _, self.length = first.shape
        self.layer, self.queries = layer, torch.tensor(list(queries))
        most = max(1, MOST_VALUES // (len(queries) * self.length))
        self.kept = next(count for count in range(min(self.heads, most), 0, -1) if self.heads % count == 0)
        self.rows = torch.zeros(self.kept, len(queries), self.length)
        side = min(self.length, MATRIX_SIDE)
        self.areas = torch.arange(self.length) * side // self.length  # of every row and column
        self.sums = torch.zeros(side, side)
        self.mean = torch.zeros(self.length, self.length) if self.length <= MAX_TOKENS else None
        self.seen = 0

    @property
    def complete(self) -> bool:
        return self.seen == self.length

    def add(self, start: int, rows: Tensor) -> None:
        """Take rows (K, T, L) of the positions from ``start`` on."""
        stop = start + rows.shape[1]
        inside = (self.queries >= start) & (self.queries < stop)
        chosen = rows[:, self.queries[inside] - start]  # (K, some of Q, L)
        self.rows[:, inside] = chosen.unflatten(0, (self.kept, -1)).mean(1)
        mean = rows.abs().mean(0)  # (T, L)
        if self.mean is not None:
            self.mean[start:stop] = mean
        columns = torch.zeros(len(mean), self.sums.shape[1]).index_add_(1, self.areas, mean)
        self.sums.index_add_(0, self.areas[start:stop], columns)
        self.seen += len(mean)

    def result(self) -> LayerAttention:
        counts = self.areas.bincount(minlength=len(self.sums)).float()
        return LayerAttention(self.rows, self.heads, self.sums / counts[:, None] / counts, self.mean)
