"""Attention maps of networks of timm and MMPreTrain, reduced as those of this package.

Shapes: B batch, H heads, K maps of a layer, L tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import AnalysisError, NoAttention
from .eval_mode import eval_mode
from .foreign_attention import foreign_attention
from .maps import Reduce
from .networks import TokenNetwork


def foreign_maps(
    network: TokenNetwork,
    images: Tensor,
    layers: Sequence[int],
    reduce: Reduce,
    include: Sequence[str],
    every_layer: bool,
) -> dict[int, Tensor]:
    """Return the maps (B, K, L, L) of layers, K = H for ``'group'`` and 1 for ``'mean'``.

    Args:
        network: A network of timm or MMPreTrain.
        images: Normalised images (B, 3, height, width).
        layers: Indices of layers, from 0.
        reduce: ``'group'`` or ``'mean'``.
        include: Must be empty.
        every_layer: Whether each of the layers must have attention; otherwise, one of them must.

    Raises:
        AnalysisError: ``reduce='none'``, or a part to include.
        NoAttention: A layer that must have attention exposes none.
    """
    name = type(network.backbone).__name__
    if include:
        raise AnalysisError(f'the maps of {name} can include no further part of a mixer, got include={tuple(include)}')
    if reduce == 'none':
        raise AnalysisError(
            f"the maps of {name} are known per head, not per channel: expected reduce='group' or 'mean'"
        )
    maps: dict[int, Tensor] = {}

    def consume(layer: int, attention: Tensor) -> None:
        maps[layer] = attention.mean(1, keepdim=True) if reduce == 'mean' else attention

    with eval_mode(network.model), torch.no_grad():
        missing = foreign_attention(network, images, layers, consume)
    if missing and (every_layer or not maps):
        raise NoAttention(*next(iter(missing.items())))
    return maps
