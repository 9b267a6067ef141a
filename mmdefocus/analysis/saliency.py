"""The saliency maps that a classifier offers, for the comparison of their faithfulness.

Shapes: B images, L tokens, R and W rows and columns of the image's token grid.
"""

import torch
from torch import Tensor, nn

from .attention_maps import attention_maps
from .errors import AnalysisError
from .eval_mode import eval_mode
from .gradient_maps import gradient_maps
from .networks import TokenNetwork, open_network
from .rollout import MAX_TOKENS, rollout


def saliency_maps(model: nn.Module | TokenNetwork, images: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Compute what a classifier looks at in three ways, for :func:`mmdefocus.analysis.insertion_deletion`.

    ``'class gradient'``: norm of the gradient of the predicted class's logit with respect to the tokens that enter
    layer 0. ``'attention'``: absolute row of the class token in the last layer, mean of the heads or groups.
    ``'rollout'``: row of the class token in the rollout over all layers.

    Args:
        model: Classifier.
        images: Normalised images (B, 3, height, width).

    Returns:
        Maps (B, R, W) by name, and, for the maps that this classifier does not have, the reason.

    Raises:
        AnalysisError: The model has no class logits.
    """
    network = open_network(model)
    last = len(network.layers) - 1
    gradient = gradient_maps(network, images, [0], of='class')[0][:, 0]
    size = (images.shape[-2], images.shape[-1])
    with eval_mode(network.model), torch.no_grad(), network.record([0, last]) as records:
        network.run(images)
    entering = network.layout(records[0].inputs, size)
    layout = network.layout(records[last].inputs, size)
    maps, missing = {'class gradient': entering.to_grid(gradient)}, {}
    if layout.class_token is None:
        reason = f'{type(network.backbone).__name__} has no class token'
        return maps, {'attention': reason, 'rollout': reason}
    try:
        row = attention_maps(network, images, [last], queries=[layout.class_token])[last]  # (B, K, 1, L)
        maps['attention'] = layout.to_grid(row[:, :, 0].abs().mean(1))
    except AnalysisError as error:
        missing['attention'] = str(error)
    try:
        if layout.length > MAX_TOKENS:
            raise AnalysisError(f'{layout.length} tokens, expected at most {MAX_TOKENS}')
        rolled = rollout(attention_maps(network, images, range(last + 1), 'mean'))[last]
        maps['rollout'] = layout.to_grid(rolled[:, layout.class_token])
    except AnalysisError as error:
        missing['rollout'] = str(error)
    return maps, missing
