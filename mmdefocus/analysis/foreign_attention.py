"""Attention of networks of timm and MMPreTrain, observed where they apply it.

Shapes: B images, H heads, L tokens that enter a layer, V channels of a value.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.models.map_mixers import (
    DeformableAttentionMixer,
    GlobalContextMixer,
    NeighbourhoodAttentionMixer,
    WindowAttentionMixer,
)

from .attention_observer import AttentionObserver, Observation
from .errors import AnalysisError
from .networks import TokenNetwork


def foreign_attention(
    network: TokenNetwork, images: Tensor, layers: Sequence[int], consume: Callable[[int, Tensor], None]
) -> dict[int, str]:
    """Run a network once and pass on the attention of its layers: the matrices that multiply the values.

    Nothing is rebuilt or switched off. While a layer runs, every product of matrices and every fused attention is
    observed:

    - ``scaled_dot_product_attention``: the softmax weights are computed from its arguments, and the weights times the
      values must be its result. ``torch.nn.MultiheadAttention`` is applied again with its weights in the result.
    - a product of a matrix (…, L, L) and values (…, L, V), or (…, V, L) and a matrix: that matrix, as it is. It may be
      signed and its rows need not sum to 1 (talking heads), unless V = L.

    If a layer applies several attentions, the heads of all follow one another. Attention between L channels cannot be
    told from attention between L tokens: a layer that has both numbers equal gives a map of its channels. The layers of
    FCViT, and of DAT where keys are not the tokens of the image in their order, have no map whatever their sizes are.

    Args:
        network: View of the network, in evaluation mode.
        images: Normalised images (B, 3, height, width).
        layers: Indices of layers, from 0.
        consume: Called with the index of a layer and its attention (B, H, L, L) as soon as the layer has run.

    Returns:
        For every layer without a map of all of its tokens, the reason, as a clause; ``consume`` is not called for it.

    Raises:
        AnalysisError: The weights of a fused attention do not reproduce its result, or a layer runs twice.
    """
    missing = dict.fromkeys(layers, 'it did not run')
    ran: set[int] = set()
    observer = AttentionObserver()
    with ExitStack() as hooks:
        for index in dict.fromkeys(layers):

            def before(module: nn.Module, args: tuple, kwargs: dict, index: int = index) -> None:
                if index in ran:
                    raise AnalysisError(
                        f'layer {index} ({network.layer_names[index]}) runs twice; leave it out of layers'
                    )
                ran.add(index)
                entering = args[0] if args else next(iter(kwargs.values()), None)
                try:
                    tokens = network.tokens(entering).shape[1] if isinstance(entering, Tensor) else None
                except AnalysisError:
                    tokens = None
                other_mixing = _other_mixing(module)
                if tokens is None:
                    missing[index] = 'its input is no tensor of tokens'
                elif other_mixing is not None:
                    missing[index] = other_mixing
                else:
                    observer.observation = Observation(len(images), tokens)

            def after(module: nn.Module, args: tuple, output: Any, index: int = index) -> None:
                seen, observer.observation = observer.observation, None
                if seen is not None and seen.maps:
                    del missing[index]
                    consume(index, torch.cat(seen.maps, dim=1))
                elif seen is not None:
                    missing[index] = seen.reason()

            layer = network.layers[index]
            hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(after).remove)
        with torch.no_grad(), observer:
            network.run(images)
    return missing


def _other_mixing(layer: nn.Module) -> str | None:
    """Return how a layer of a pyramidal network of this package mixes, as a clause, if not by attention to its tokens.

    Matrices of as many rows and columns as there are tokens would look like their attention.
    """
    for mixer in layer.modules():
        if isinstance(mixer, GlobalContextMixer):
            return 'it mixes by convolutions and a global context'
        if isinstance(mixer, DeformableAttentionMixer):
            return 'it attends to sampled positions, not to tokens (see sample_positions and attention of its mixer)'
        if isinstance(mixer, NeighbourhoodAttentionMixer):
            return f'it attends within neighbourhoods of {mixer.kernel_size} x {mixer.kernel_size} tokens'
        if isinstance(mixer, WindowAttentionMixer) and mixer.shift:
            return f'it attends within shifted windows of {mixer.window_size} x {mixer.window_size} tokens'
    return None
