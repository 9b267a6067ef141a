"""Numbers that say how over-focused a trained classifier is."""

import torch
from torch import Tensor

from mmdefocus.analysis import insertion_deletion, receptive_field, scores
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.saliency import saliency_maps
from mmdefocus.analysis.scores import SCORES

BATCH = 16
# Titles, and the direction in which an over-focused network differs.
COLUMNS: dict[str, tuple[str, str]] = {
    name: (SCORES[name].title, SCORES[name].over_focused)
    for name in ('entropy', 'top_mass', 'gini', 'sink_strength', 'query_irrelevance', 'gradient_evenness')
} | {'receptive_field': ('Receptive field 50 %', 'low')}
MAPS = ('class gradient', 'attention', 'rollout')


def measure(network: TokenNetwork, images: Tensor) -> dict[str, float]:
    """Return the scores of ``COLUMNS`` and the faithfulness of ``MAPS``, mean over the images.

    Scores are also means over layers and heads; those that the network does not have are NaN. The receptive field is
    the share of the image's cells that holds half of the field of the class token after the last layer. Faithfulness is
    the area under the insertion curve minus that of cells in random order.

    Args:
        network: Classifier with a class token.
        images: Normalised images (B, 3, height, width).
    """
    table = scores(network, images, batch_size=BATCH)
    means = {
        name: float(torch.stack([value.nanmean() for value in values]).nanmean())
        for name, values in table.values.items()
    }
    last = len(network.layers) - 1
    with torch.no_grad(), network.record([last]) as records:
        network.run(images[:1])
    layout = network.layout(records[last].outputs, (images.shape[-2], images.shape[-1]))
    assert layout.class_token is not None
    field = receptive_field(network, images, [last], queries=[layout.class_token])[last]
    means['receptive_field'] = field.shares[0.5][0]
    maps, _ = saliency_maps(network, images)
    for name in MAPS:
        curves = insertion_deletion(network, images, maps[name], baseline='mean')
        gain = curves.area(curves.insertion) - curves.area(curves.random_insertion)
        means[f'faithfulness of {name}'] = float(gain.mean())
    return means
