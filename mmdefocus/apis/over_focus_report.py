"""Reports of what networks look at: attention, gradients, receptive fields and scores of every network and image.

Shapes: K heads or groups of channels, Q query tokens, L tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmdefocus.analysis.attention_maps import attention_blocks
from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.gradient_maps import gradient_maps
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.prepared_image import PreparedImage
from mmdefocus.analysis.receptive_field import receptive_field
from mmdefocus.analysis.report_data import LayerReport, NetworkReport
from mmdefocus.analysis.rollout import MAX_TOKENS
from mmdefocus.analysis.scores import ScoreTable, scores
from mmdefocus.analysis.token_layout import TokenLayout, grid_queries

from .analysis_models import AnalysedNetwork, naming
from .layer_attention import LayerAttention, collect_attention, rollouts

MOST_QUERIES = 256  # tokens of a sequence all of which are queries
GRID_QUERIES = 14  # rows and columns of the queries of longer sequences
GRADIENT_QUERIES = 3  # rows and columns of the queries of gradients and receptive fields
# Receptive fields cost a backward pass through all layers below, per layer and query. With more passes through layers
# than this, there is one query beside the class token.
MOST_PASSES = 1000
STEPS = ('attention', 'gradients', 'class gradient', 'receptive fields', 'scores')

_Result = TypeVar('_Result')


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        layers: Numbers of layers in any order; None for all, and negative numbers count from the last.
        reduce: ``'group'``, a map per head or group of channels, or ``'mean'``, their mean.
        include: Parts that attention maps include, any of ``'conv'`` and ``'gate'``.
    """

    layers: Sequence[int] | None = None
    reduce: str = 'group'
    include: tuple[str, ...] = ()


def check_network(
    network: AnalysedNetwork, image: PreparedImage, layers: Sequence[int] | None, include: Sequence[str]
) -> None:
    """Check that a network takes an image and has tokens, and that its attention maps can include parts of the mixer.

    Raises:
        AnalysisError: One of them does not hold.
    """
    try:
        with torch.no_grad(), naming(network.label):
            trace(network.network, image.inputs, network.network.select(layers))
    except (RuntimeError, AssertionError) as error:  # networks of other packages check sizes in any way
        height, width = image.inputs.shape[-2:]
        raise AnalysisError(
            f"'{network.label}' cannot take an image of {height} x {width} pixels ({error}); give another --size"
        ) from error
    if include:
        try:
            next(iter(attention_blocks(network.network, image.inputs, [0], include=include)))
        except AnalysisError as error:
            raise AnalysisError(
                f"'{network.label}' has no attention that can include {' and '.join(include)}: {error}; omit "
                '--include, or leave the network out'
            ) from error


def report_network(
    network: AnalysedNetwork,
    images: Sequence[PreparedImage],
    options: ReportOptions,
    advance: Callable[[str], None] = lambda step: None,
) -> tuple[list[NetworkReport], ScoreTable | None]:
    """Analyse a network for images.

    What a network or a layer does not have, such as attention, becomes a note in the reports.

    Args:
        network: The network.
        images: Images, prepared for this network.
        options: What to show.
        advance: Called before each of ``STEPS``, for every image.

    Returns:
        One report per image, and the scores of all images; None without scores.

    Raises:
        AnalysisError: A layer does not exist, or the network gives no tokens.
    """
    reports = [_report(network, image, options, advance) for image in images]
    tables = [table for _, table in reports if table is not None]
    return [report for report, _ in reports], _joined(tables) if tables else None


@dataclass(frozen=True)
class Trace:
    """What one run of a network tells.

    Attributes:
        entering: Layouts of the tokens that enter the layers, by layer.
        leaving: Layouts of the tokens that leave them.
        logits: Class logits (1, classes); None without.
    """

    entering: dict[int, TokenLayout]
    leaving: dict[int, TokenLayout]
    logits: Tensor | None


@torch.no_grad()
def trace(network: TokenNetwork, images: Tensor, layers: Sequence[int]) -> Trace:
    """Run a network in evaluation mode once and find the layouts of its tokens.

    Raises:
        AnalysisError: A layer has no tokens, or did not run.
    """
    with network.record(layers) as records:
        logits = network.run(images)
    missing = [layer for layer in layers if layer not in records]
    if missing:
        raise AnalysisError(f'layer {missing[0]} ({network.layer_names[missing[0]]}) did not run; leave it out')
    size = (images.shape[-2], images.shape[-1])
    entering = {layer: network.layout(records[layer].inputs, size) for layer in layers}
    leaving = {layer: network.layout(records[layer].outputs, size) for layer in layers}
    return Trace(entering, leaving, logits)


def paired_queries(leaving: TokenLayout, entering: TokenLayout, side: int) -> dict[int, int]:
    """Choose query tokens that leave a layer, and find the tokens that enter it at the same place.

    Args:
        leaving, entering: Layouts of the layer.
        side: Rows and columns of the queries.

    Returns:
        The positions of the latter by those of the former; a layer may reduce the grid.
    """
    pairs = {}
    for query in grid_queries(leaving, side):
        if query == leaving.class_token:
            if entering.class_token is not None:
                pairs[query] = entering.class_token
            continue
        place = divmod(int(leaving.cells[query]), leaving.grid[1])
        row, column = (
            int((index + 0.5) * new / old)
            for index, new, old in zip(place, entering.image_grid, leaving.image_grid, strict=True)
        )
        pairs[query] = entering.token_at(row, column)
    return pairs


def _report(
    analysed: AnalysedNetwork, image: PreparedImage, options: ReportOptions, advance: Callable[[str], None]
) -> tuple[NetworkReport, ScoreTable | None]:
    network, inputs = analysed.network, image.inputs
    layers = sorted(set(network.select(options.layers)))
    earlier = list(range(max(layers) + 1))
    found = trace(network, inputs, earlier)
    notes: list[str] = []

    def attempt(step: str, compute: Callable[[], _Result]) -> _Result | None:
        advance(step)
        try:
            return compute()
        except AnalysisError as error:
            notes.append(f'no {step}: {error}')
            return None

    rolls = max(layout.length for layout in found.entering.values()) <= MAX_TOKENS
    queries = {layer: _queries(found.entering[layer]) for layer in (earlier if rolls else layers)}
    passes = sum(layer + 1 for layer in layers)
    side = GRADIENT_QUERIES if passes * (1 + GRADIENT_QUERIES**2) <= MOST_PASSES else 1
    chosen = {layer: paired_queries(found.leaving[layer], found.entering[layer], side) for layer in layers}
    advance(STEPS[0])
    attention, missing = collect_attention(network, inputs, queries, options.reduce, options.include)
    rolled, reason = rollouts(attention, layers) if rolls else ({}, f'no rollout of more than {MAX_TOKENS} tokens')
    notes += [reason] if reason and attention else []
    gradients = attempt(STEPS[1], lambda: _per_layer(gradient_maps, network, inputs, chosen))
    class_gradients = attempt(STEPS[2], lambda: gradient_maps(network, inputs, layers, of='class'))
    fields = attempt(STEPS[3], lambda: _per_layer(receptive_field, network, inputs, chosen))
    table = attempt(STEPS[4], lambda: scores(network, inputs, layers))
    reports = []
    for layer in layers:
        report = LayerReport(layer, network.layer_names[layer], found.entering[layer], queries[layer])
        if layer in attention:
            _add_attention(report, attention[layer], rolled.get(layer), notes)
        else:
            report.attention_note = missing[layer]
        report.gradient_queries = list(chosen[layer].values())
        if gradients is not None:
            report.gradient = gradients[layer][0].float().cpu()
        if class_gradients is not None:
            report.class_gradient = class_gradients[layer][0, 0].float().cpu()
        if fields is not None:
            report.receptive_fields = fields[layer].fields.float().cpu()
        reports.append(report)
    notes += [] if table is None else table.notes
    values = {} if table is None else {name: [head[0] for head in heads] for name, heads in table.values.items()}
    predicted = '' if found.logits is None else _predicted(found.logits, analysed.classes)
    return (
        NetworkReport(
            analysed.label,
            analysed.description,
            image.name,
            image.picture,
            reports,
            values,
            predicted,
            notes,
            len(network.layers),
        ),
        table,
    )


def _queries(layout: TokenLayout) -> list[int]:
    return list(range(layout.length)) if layout.length <= MOST_QUERIES else sorted(grid_queries(layout, GRID_QUERIES))


def _per_layer(function: Callable[..., dict[int, Any]], network: TokenNetwork, images: Tensor, queries: dict) -> dict:
    """Call a function of networks once for each set of query tokens that layers share."""
    results: dict[int, Any] = {}
    for shared in dict.fromkeys(map(tuple, queries.values())):
        layers = [layer for layer, own in queries.items() if tuple(own) == shared]
        results |= function(network, images, layers, queries=list(shared))
    return results


def _add_attention(report: LayerReport, found: LayerAttention, rolled: Tensor | None, notes: list[str]) -> None:
    report.attention, report.matrix = found.rows, found.matrix
    report.rollout = None if rolled is None else rolled[report.queries]
    if len(found.rows) < found.heads:
        note = f'the {found.heads} heads or groups of a layer are averaged to {len(found.rows)}, to save memory'
        notes += [] if note in notes else [note]


def _predicted(logits: Tensor, classes: Sequence[str] | None) -> str:
    probability, index = logits[0].float().softmax(0).max(0)
    name = str(int(index)) if classes is None else classes[int(index)]
    return f'{name} ({float(probability):.2f})'


def _joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Join the tables of single images."""
    first = tables[0]
    values = {
        name: [torch.cat([table.values[name][row] for table in tables]) for row in range(len(first.layers))]
        for name in first.values
    }
    sinks = [_concatenated([table.sinks[row] for table in tables]) for row in range(len(first.layers))]
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    return replace(first, values=values, sinks=sinks, notes=notes)


def _concatenated(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if len(found) == len(parts) else None
