"""Scores of a network: of its attention maps, its tokens and its gradients, for every layer, head and image.

Shapes: I images, B images of a batch, K heads or groups of channels, L tokens, R and W rows and columns of the grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..attention_maps import attention_blocks
from ..errors import AnalysisError, NoAttention
from ..eval_mode import eval_mode
from ..gradient_maps import gradient_maps
from ..networks import LayerRecord, TokenNetwork, open_network
from ..token_layout import TokenLayout
from .head_values import HeadValues, record_values
from .map_scores import MapScores
from .registry import SCORES
from .table import ScoreTable
from .tokens import gradient_evenness, norm_outliers


def scores(
    model: nn.Module | TokenNetwork, images: Tensor, layers: Sequence[int] | None = None, batch_size: int = 1
) -> ScoreTable:
    """Compute all scores of a network (:mod:`mmdefocus.analysis.scores.registry`).

    Scores of attention are those of the heads' maps, or, in Mamba, of the mean maps of the groups of channels. Scores
    of tokens and gradients are about image tokens only, without class token and padding. What a layer or network does
    not have (attention, class logits) is NaN with a note, and everything else is computed.

    Args:
        model: Network.
        images: Normalised images (I, 3, height, width).
        layers: Indices of layers; None for all.
        batch_size: Images at a time. One is slowest and needs the least memory.

    Returns:
        The table of the scores.

    Raises:
        AnalysisError: A layer does not exist, ``batch_size`` is not positive, or there are no images.
    """
    network = open_network(model)
    indices = list(dict.fromkeys(network.select(layers)))
    if batch_size < 1 or not len(images):
        raise AnalysisError(f'expected images and a batch_size of at least 1, got {len(images)} and {batch_size}')
    batches = [_BatchScores(network, batch, indices) for batch in images.split(batch_size)]
    return ScoreTable(
        type(network.backbone).__name__,
        indices,
        [network.layer_names[index] for index in indices],
        {name: [torch.cat([batch.get(name, index) for batch in batches]) for index in indices] for name in SCORES},
        [_concatenate_sinks([batch.sinks.get(index) for batch in batches]) for index in indices],
        _merge_notes(batches),
    )


class _BatchScores:
    """Scores of a batch of images: ``values`` by layer and name, (B, K), ``sinks`` by layer, (B, K), and reasons.

    ``reasons`` has the layers by the reason why they lack a score.
    """

    def __init__(self, network: TokenNetwork, images: Tensor, layers: list[int]) -> None:
        self.images = images
        self.values: dict[int, dict[str, Tensor]] = {layer: {} for layer in layers}
        self.sinks: dict[int, Tensor] = {}
        self.reasons: dict[str, list[int]] = {}
        with eval_mode(network.model), torch.no_grad(), record_values(network, layers) as heads:
            with network.record(layers) as records:
                network.run(images)
            layouts = {layer: self._layout(network, records[layer].inputs, layer) for layer in layers}
            for layer in layers:
                self._score_tokens(network, records.pop(layer), layer)
        self._score_gradients(network, layouts)
        self._score_maps(network, layouts, heads)

    def get(self, name: str, layer: int) -> Tensor:
        """Return a score, (B, K), float32 on the CPU; NaN (B, 1) without it."""
        value = self.values[layer].get(name)
        return torch.full((len(self.images), 1), torch.nan) if value is None else value.float().cpu()

    def _lack(self, layer: int, reason: object) -> None:
        self.reasons.setdefault(str(reason), []).append(layer)

    def _layout(self, network: TokenNetwork, tokens: Tensor, layer: int) -> TokenLayout | None:
        height, width = self.images.shape[-2:]
        try:
            return network.layout(tokens, (height, width))
        except AnalysisError as error:
            self._lack(layer, error)
            return None

    def _score_tokens(self, network: TokenNetwork, record: LayerRecord, layer: int) -> None:
        layout = self._layout(network, record.outputs, layer)  # of the outputs: a layer may reduce the grid
        if layout is not None:
            norms = network.tokens(record.outputs).float().norm(dim=-1)  # (B, L)
            self.values[layer]['norm_outliers'] = norm_outliers(_image_tokens(layout, norms))[:, None]

    def _score_gradients(self, network: TokenNetwork, layouts: dict[int, TokenLayout | None]) -> None:
        places = {layer: layout for layer, layout in layouts.items() if layout is not None}
        try:
            gradients = gradient_maps(network, self.images, list(places), of='class') if places else {}
        except AnalysisError as error:
            for layer in places:
                self._lack(layer, error)
            return
        for layer, gradient in gradients.items():
            evenness = gradient_evenness(_image_tokens(places[layer], gradient[:, 0]))
            self.values[layer]['gradient_evenness'] = evenness[:, None]
            if evenness.isnan().any():
                self._lack(layer, 'no gradient evenness: the class logit depends on no token, or there is a single one')

    def _score_maps(
        self, network: TokenNetwork, layouts: dict[int, TokenLayout | None], heads: dict[int, HeadValues]
    ) -> None:
        left = set(layouts)
        while left:  # a layer without attention ends the run of the others
            try:
                for layer, start, rows in attention_blocks(network, self.images, sorted(left)):
                    if start == 0:
                        layout = layouts[layer]
                        values = self._head_values(heads.get(layer), rows, layer)
                        scores = MapScores(rows.shape[-1], layout is not None and layout.causal, values)
                    scores.add(start, rows)
                    if scores.complete:
                        self.values[layer] |= scores.compute()
                        self.sinks[layer] = scores.sinks().cpu()
                        left.discard(layer)
                assert not left, f'attention_blocks gave no complete maps of the layers {sorted(left)}'
            except NoAttention as error:
                self._lack(error.layer, f'no attention: {error.reason}')
                left.remove(error.layer)

    def _head_values(self, head: HeadValues | None, rows: Tensor, layer: int) -> Tensor | None:
        if head is not None and head.reproduce(rows):
            return head.values
        self._lack(layer, 'no kind of sinks: the values of the heads are not known')
        return None


def _image_tokens(layout: TokenLayout, values: Tensor) -> Tensor:
    return layout.to_grid(values).flatten(1)  # (B, R · W)


def _concatenate_sinks(sinks: list[Tensor | None]) -> Tensor | None:
    found = [part for part in sinks if part is not None]
    return torch.cat(found) if len(found) == len(sinks) else None


def _merge_notes(batches: list[_BatchScores]) -> list[str]:
    layers: dict[str, set[int]] = {}
    for batch in batches:
        for reason, lacking in batch.reasons.items():
            layers.setdefault(reason, set()).update(lacking)
    return [
        f'layer{"s" * (len(found) > 1)} {", ".join(map(str, sorted(found)))}: {reason}'
        for reason, found in layers.items()
    ]
