"""Faithfulness of the saliency maps of a network, as areas under insertion and deletion curves.

Shapes: I images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdefocus.analysis.faithfulness import insertion_deletion
from mmdefocus.analysis.prepared_image import PreparedImage
from mmdefocus.analysis.saliency import saliency_maps

from .analysis_models import AnalysedNetwork

CURVES = ('insertion', 'random_insertion', 'deletion', 'random_deletion')


@dataclass(frozen=True)
class MapFaithfulness:
    """Areas under the curves of :class:`mmdefocus.analysis.faithfulness.Faithfulness` for the predicted classes.

    Attributes:
        areas: By kind of saliency map and curve, (I); a kind is missing if an image does not have it.
        notes: What could not be measured, and why.
    """

    areas: Mapping[str, Mapping[str, Tensor]]
    notes: Sequence[str]

    def to_markdown(self) -> str:
        """Return a table with a row per map: mean over the images, beside that of cells in random order."""
        if not self.areas:
            return '\n\n'.join(self.notes) + '\n'
        lines = ['| map | insertion ↑ | in random order | deletion ↓ | in random order |', '|---|--:|--:|--:|--:|']
        for name, curves in self.areas.items():
            lines.append(f'| {name} | ' + ' | '.join(f'{curves[curve].mean():.3f}' for curve in CURVES) + ' |')
        return '\n'.join([*lines, *(f'\n{note}' for note in self.notes)]) + '\n'


def measure_faithfulness(network: AnalysedNetwork, images: Sequence[PreparedImage], steps: int) -> MapFaithfulness:
    """Measure how faithful the maps of :func:`mmdefocus.analysis.saliency.saliency_maps` are.

    Cells that are not there have the mean colour of the image: a blur of five pixels leaves a small image readable.

    Args:
        network: Classifier.
        images: Images, prepared for it.
        steps: Steps of the curves; every step costs four runs of the network per map and image.

    Raises:
        AnalysisError: The network has no class logits, or there are more steps than cells.
    """
    areas: dict[str, dict[str, list[Tensor]]] = {}
    missing: dict[str, str] = {}
    for image in images:
        maps, reasons = saliency_maps(network.network, image.inputs)
        missing |= reasons
        for name, values in maps.items():
            curves = insertion_deletion(network.network, image.inputs, values, steps=steps, baseline='mean')
            for curve in CURVES:
                areas.setdefault(name, {}).setdefault(curve, []).append(curves.area(getattr(curves, curve)))
    joined = {
        name: {curve: torch.cat(parts) for curve, parts in curves.items()}
        for name, curves in areas.items()
        if name not in missing
    }
    return MapFaithfulness(joined, [f'{name} not measured: {reason}' for name, reason in missing.items()])
