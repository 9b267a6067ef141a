"""The data of the page of a report.

Shapes: L tokens, K heads, Q query tokens.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...pages.colours import CURVES
from ..errors import AnalysisError
from ..report_data import LayerReport, NetworkReport
from ..token_layout import TokenLayout
from .palettes import DECADES, magnitudes, signed, table
from .quantisation import PackedArray, pack_array, to_base64
from .selection import group_by_image, image_cells, relative_depth

MATRIX_SIDE = 256  # the rows of all tokens of longer sequences are not drawn as a matrix

Heads = list[PackedArray]


def pack_reports(reports: Sequence[NetworkReport], meanings: Mapping[str, str], limit: int) -> dict[str, Any]:
    """Return everything that the page shows, ready for JSON.

    Means over heads, rollouts, gradients and receptive fields have 16 bits, single heads and matrices 8. Every n-th
    head is kept, for the smallest n with which the arrays have at most ``limit`` characters; no head, if all other
    arrays reach the limit.

    Args:
        reports: One report per network and image.
        meanings: Meaning of a score in one line, by its name.
        limit: Characters of all arrays.

    Raises:
        AnalysisError: A value is NaN or infinite, or reports are missing or ambiguous.
    """
    groups = group_by_image(reports)
    packer = _Packer()
    entries = [packer.report(report) for report in reports]
    step = _head_step(packer.heads, limit - packer.size)
    layers = [layer for entry in entries for layer in entry['layers'] if layer['attention']]
    for layer, heads in zip(layers, packer.heads, strict=True):
        kept = range(0, len(heads), step) if step else ()
        layer['attention']['heads'] = {number: heads[number].to_json() for number in kept}
    return {
        'images': list(groups),
        'labels': list(dict.fromkeys(report.label for report in reports)),
        'pictures': list(packer.pictures),
        'layouts': packer.layouts,
        'reports': entries,
        'headStep': step,
        'meanings': dict(meanings),
        'decades': DECADES,
        'curves': CURVES,
        'palettes': {
            'magnitudes': to_base64(table(magnitudes()).tobytes()),
            'signed': to_base64(table(signed()).tobytes()),
        },
    }


class _Packer:
    """Packs reports; counts the characters of their arrays, and holds what several layers share."""

    def __init__(self) -> None:
        self.size = 0
        self.pictures: dict[str, int] = {}
        self.layouts: list[dict[str, Any]] = []
        self.heads: list[Heads] = []  # of every layer with attention

    def report(self, report: NetworkReport) -> dict[str, Any]:
        return {
            'label': report.label,
            'description': report.description,
            'image': report.image_name,
            'picture': self.pictures.setdefault(_jpeg(report.image), len(self.pictures)),
            'predicted': report.predicted,
            'notes': report.notes,
            'layers': [self.layer(report, layer) for layer in report.layers],
            'scores': {
                name: _mean_std(values, f"{name} of '{report.label}'") for name, values in report.scores.items()
            },
        }

    def layer(self, report: NetworkReport, layer: LayerReport) -> dict[str, Any]:
        where = f"layer {layer.index} of '{report.label}'"
        length, queries, gradient_queries = layer.layout.length, len(layer.queries), len(layer.gradient_queries)
        complete = layer.queries == list(range(length)) and length <= MATRIX_SIDE  # the rows are the matrix
        fields = layer.receptive_fields
        field_grid = None if fields is None else list(fields.shape[1:])
        flat_fields = None if fields is None else fields.flatten(1)
        gradient = None if layer.class_gradient is None else layer.class_gradient[None]
        return {
            'index': layer.index,
            'name': layer.name,
            'depth': relative_depth(report, layer),
            'layout': self.layout(layer.layout),
            'queries': layer.queries,
            'gradientQueries': layer.gradient_queries,
            'note': layer.attention_note,
            'attention': self.attention(layer.attention, (queries, length), f'attention of {where}'),
            'matrix': None if complete else self.array(layer.matrix, 8, None, f'attention matrix of {where}'),
            'rollout': self.array(layer.rollout, 16, (queries, length), f'rollout of {where}'),
            'gradient': self.array(layer.gradient, 16, (gradient_queries, length), f'gradient of {where}'),
            'classGradient': self.array(gradient, 16, (1, length), f'class gradient of {where}'),
            'fields': self.array(flat_fields, 16, None, f'receptive fields of {where}'),
            'fieldGrid': field_grid,
        }

    def attention(self, maps: Tensor | None, shape: tuple[int, int], what: str) -> dict[str, Any] | None:
        if maps is None:
            return None
        packed = {
            'count': len(maps),
            'magnitude': self.array(maps.abs().mean(0), 16, shape, what),
            'signed': self.array(maps.mean(0), 16, shape, what) if bool((maps < 0).any()) else None,
        }
        self.heads.append([pack_array(head.numpy(), 8) for head in maps] if len(maps) > 1 else [])
        return packed

    def array(
        self, values: Tensor | None, bits: int, shape: tuple[int, int] | None, what: str
    ) -> dict[str, Any] | None:
        if values is None:
            return None
        if shape is not None and values.shape != shape:
            raise AnalysisError(
                f'expected the shape {shape} (query tokens, tokens) of the {what}, got {tuple(values.shape)}'
            )
        if not values.isfinite().all():
            raise AnalysisError(
                f'the {what} has NaN or infinite values; look for the cause in the weights and in the image'
            )
        packed = pack_array(values.numpy(), bits)
        self.size += packed.size
        return packed.to_json()

    def layout(self, layout: TokenLayout) -> int:
        entry = {
            'rows': layout.image_grid[0],
            'columns': layout.image_grid[1],
            'cells': image_cells(layout).tolist(),
            'classToken': layout.class_token,
            'causal': layout.causal,
        }
        if entry not in self.layouts:
            self.layouts.append(entry)
        return self.layouts.index(entry)


def _head_step(heads: list[Heads], limit: int) -> int:
    """Return the smallest n for which every n-th head of all layers has ``limit`` characters; 0 if none has."""
    for step in range(1, max(map(len, heads), default=0) + 1):
        if sum(head.size for of_layer in heads for head in of_layer[::step]) <= limit:
            return step
    return 0


def _mean_std(layers: list[Tensor], what: str) -> dict[str, list[float | None]]:
    """Return mean and standard deviation over the heads of every layer that have the score; None without one."""
    if any(bool(values.isinf().any()) for values in layers):
        raise AnalysisError(f'the score {what} is infinite; look for the cause in the weights and in the image')
    existing = [values[~values.isnan()].double() for values in layers]
    return {
        'mean': [values.mean().item() if len(values) else None for values in existing],
        'std': [values.std(correction=0).item() if len(values) else None for values in existing],
    }


def _jpeg(image: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=92, subsampling=0)
    return to_base64(file.getvalue())
