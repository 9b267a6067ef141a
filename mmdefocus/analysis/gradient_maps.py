"""Gradient maps: how strongly a token, or the logit of a class, depends on the tokens before a layer.

Shapes: B images, Q query tokens, L tokens that enter the layer, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import AnalysisError
from .layer_taps import check_finite, check_images, differentiable, taps
from .networks import TokenNetwork, open_network


def gradient_maps(
    model: nn.Module | TokenNetwork,
    images: Tensor,
    layers: Sequence[int] | None = None,
    queries: Sequence[int] | None = None,
    of: str = 'token',
    wrt: str = 'layer',
    classes: Sequence[int] | Tensor | None = None,
) -> dict[int, Tensor]:
    """Compute norms of gradients with respect to tokens; norms are Euclidean, over the channels.

    - ``of='token'``: ‖∂‖y_q‖ / ∂x_j‖ for the query token y_q that leaves the layer. With ``wrt='layer'``, x_j are the
      tokens that enter the same layer; with ``wrt='input'``, those that enter layer 0.
    - ``of='class'``: ‖∂ logit / ∂x_j‖ for the tokens x_j that enter the layer. Figure 1b of the De-focus paper
      (arXiv 2406.04342) shows such norms after back-propagation.

    Every map is exact: automatic differentiation of the network in evaluation mode. Each query costs a backward pass
    through the layer, or, with ``wrt='input'``, through all layers up to it. Activations are kept of one layer at a
    time with ``wrt='layer'``, of the whole network with ``wrt='input'``, and of one block at a time for the class
    logit of a backbone of mmdefocus.

    Args:
        model: A model, or the view of one.
        images: Normalised images (B, 3, height, width) of the model's type, on its device.
        layers: Indices of layers; None for all. Negative numbers count from the last.
        queries: Positions of query tokens in the sequence that leaves the layer; None for all of them.
        of: ``'token'`` or ``'class'``.
        wrt: ``'layer'`` or ``'input'``; with ``of='class'`` only ``'layer'``.
        classes: For ``of='class'``, one class index per image; None for the class that the model predicts.

    Returns:
        Norms (B, Q, L) by layer, with L of the tokens that the gradient is with respect to; Q = 1 for the class logit.

    Raises:
        AnalysisError: A layer, query or class does not exist, the images or the options do not fit, the model has no
            class logits, or a gradient is not finite.
    """
    network = open_network(model)
    indices = network.select(layers)
    check_images(images)
    _check_options(of, wrt, queries, classes)
    with torch.inference_mode(False):
        images = images.detach().clone()
    if of == 'class':
        maps = _class_gradients(network, images, indices, classes)
    elif wrt == 'layer':
        maps = _layer_gradients(network, images, indices, queries)
    else:
        maps = _input_gradients(network, images, indices, queries)
    for index in indices:
        if index not in maps:
            raise AnalysisError(f'layer {index} ({network.layer_names[index]}) did not run; leave it out of layers')
    return {index: check_finite(maps[index], network, index) for index in indices}


def _layer_gradients(
    network: TokenNetwork, images: Tensor, indices: list[int], queries: Sequence[int] | None
) -> dict[int, Tensor]:
    entered: dict[int, Tensor] = {}
    maps: dict[int, Tensor] = {}

    def enter(index: int, tokens: Tensor) -> Tensor:
        entered[index] = tokens.detach().requires_grad_()
        return entered[index].clone()

    def leave(index: int, tokens: Tensor) -> Tensor:
        maps[index] = _token_gradients(network, tokens, entered.pop(index), queries)
        return tokens.detach()

    with differentiable(network.model), taps(network, indices, enter, leave):
        network.run(images)
    return maps


def _input_gradients(
    network: TokenNetwork, images: Tensor, indices: list[int], queries: Sequence[int] | None
) -> dict[int, Tensor]:
    entered: list[Tensor] = []
    left: dict[int, Tensor] = {}

    def enter(index: int, tokens: Tensor) -> Tensor:
        if index == 0:
            entered.append(tokens.detach().requires_grad_())
            return entered[0].clone()
        return tokens

    def leave(index: int, tokens: Tensor) -> Tensor:
        left[index] = tokens
        return tokens.clone()

    with differentiable(network.model):
        with taps(network, sorted({0, *indices}), enter, leave):
            network.run(images)
        return {
            index: _token_gradients(network, left[index], entered[0], queries) for index in indices if index in left
        }


def _class_gradients(
    network: TokenNetwork, images: Tensor, indices: list[int], classes: Sequence[int] | Tensor | None
) -> dict[int, Tensor]:
    entered: dict[int, Tensor] = {}

    def enter(index: int, tokens: Tensor) -> Tensor:
        entered[index] = tokens
        return tokens.clone()

    with differentiable(network.model, checkpointing=True):
        with taps(network, indices, enter):
            logits = network.run(images.clone().requires_grad_())
        if logits is None:
            raise AnalysisError(
                f"of='class' needs class logits, which {type(network.model).__name__} does not have; give a "
                "classifier, or use of='token'"
            )
        chosen = logits.gather(1, _class_indices(classes, logits)).sum()
        gradients = torch.autograd.grad(chosen, list(entered.values()), materialize_grads=True)
    norms = (network.tokens(gradient).norm(dim=-1).unsqueeze(1) for gradient in gradients)  # (B, 1, L)
    return dict(zip(entered, norms, strict=True))


def _token_gradients(network: TokenNetwork, outputs: Tensor, inputs: Tensor, queries: Sequence[int] | None) -> Tensor:
    norms = network.tokens(outputs).norm(dim=-1)  # (B, L)
    length = norms.shape[1]
    rows = []
    for query in check_queries(queries, length):
        (gradient,) = torch.autograd.grad(norms[:, query].sum(), inputs, retain_graph=True, materialize_grads=True)
        rows.append(network.tokens(gradient).norm(dim=-1))
    return torch.stack(rows, dim=1)  # (B, Q, L)


def check_queries(queries: Sequence[int] | None, length: int) -> Sequence[int]:
    """Return the queries, all positions for None; raise an AnalysisError if one is outside a sequence of ``length``."""
    if queries is None:
        return range(length)
    if not queries or not 0 <= min(queries) <= max(queries) < length:
        raise AnalysisError(
            f'expected positions from 0 to {length - 1} of query tokens that leave the layer, got {list(queries)}'
        )
    return queries


def _check_options(of: str, wrt: str, queries: Sequence[int] | None, classes: Sequence[int] | Tensor | None) -> None:
    if of not in ('token', 'class') or wrt not in ('layer', 'input'):
        raise AnalysisError(f"expected of='token' or 'class' and wrt='layer' or 'input', got {of!r} and {wrt!r}")
    if of == 'token' and classes is not None:
        raise AnalysisError("classes is for of='class'")
    if of == 'class' and (queries is not None or wrt != 'layer'):
        raise AnalysisError(
            "of='class' takes no queries and wrt='layer' only: its gradient is with respect to the tokens that enter "
            'each layer; those of layer 0 are the input tokens'
        )


def _class_indices(classes: Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    images, count = logits.shape
    if classes is None:
        return logits.argmax(dim=1, keepdim=True)
    indices = torch.as_tensor(classes, device=logits.device)
    if indices.shape != (images,) or indices.is_floating_point() or not 0 <= indices.min() <= indices.max() < count:
        raise AnalysisError(
            f'expected classes to be {images} class indices from 0 to {count - 1}, one per image, got '
            f'{indices.tolist()}'
        )
    return indices.long().unsqueeze(1)
