"""Which layers and tokens of several networks are shown next to each other.

Shapes: L tokens, Q query tokens.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import AnalysisError
from ..report_data import LayerReport, NetworkReport
from ..token_layout import OUTSIDE, TokenLayout

CLASS_TOKEN = 'class token'
Place = tuple[float, float] | str  # row and column in the image, from 0 to 1, or CLASS_TOKEN


def group_by_image(reports: Sequence[NetworkReport]) -> dict[str, list[NetworkReport]]:
    """Return the reports of every image, in the order given.

    Raises:
        AnalysisError: There are no reports, a report has no layers, or two reports have the same label and image.
    """
    if not reports:
        raise AnalysisError('expected the report of at least one network and image, got none')
    groups: dict[str, list[NetworkReport]] = {}
    for report in reports:
        group = groups.setdefault(report.image_name, [])
        if not report.layers:
            raise AnalysisError(f"the report of '{report.label}' has no layers; analyse at least one")
        if any(other.label == report.label for other in group):
            raise AnalysisError(
                f"two reports of the image '{report.image_name}' have the label '{report.label}'; give every network "
                'a label of its own'
            )
        group.append(report)
    return groups


def relative_depth(report: NetworkReport, layer: LayerReport) -> float:
    """Return the share of the network's layers up to and including this one, in (0, 1]."""
    return (layer.index + 1) / (report.layer_count or report.layers[-1].index + 1)


def layer_at_depth(report: NetworkReport, depth: float) -> LayerReport:
    """Return the analysed layer whose relative depth is nearest."""
    return min(report.layers, key=lambda layer: abs(relative_depth(report, layer) - depth))


def shown_depths(reports: Sequence[NetworkReport], count: int) -> list[float]:
    """Return the relative depths of at most ``count`` layers, spread over those of the network with the most layers.

    The last layer is always among them.
    """
    reference = max(reports, key=lambda report: len(report.layers))
    number = len(reference.layers)
    chosen = sorted({math.ceil(number * (step + 1) / count) - 1 for step in range(count)})
    return [relative_depth(reference, reference.layers[index]) for index in chosen]


def image_cells(layout: TokenLayout) -> Tensor:
    """Return for every token row · columns + column of its cell on the image's grid, -1 for a token outside the image
    such as the class token, and -2 for padding; (L), int64."""
    rows, columns = layout.cells // layout.grid[1], layout.cells % layout.grid[1]
    cells = rows * layout.image_grid[1] + columns
    cells[(rows >= layout.image_grid[0]) | (columns >= layout.image_grid[1])] = -2
    cells[layout.cells == OUTSIDE] = -1
    return cells


def nearest_query(layout: TokenLayout, queries: Sequence[int], place: Place) -> int | None:
    """Return the index in ``queries`` of the token nearest to a place in the image; None without one.

    Of equally near ones it is the last. The class token is found by name only, and only that token.
    """
    if place == CLASS_TOKEN:
        wanted = layout.class_token
        return queries.index(wanted) if wanted is not None and wanted in queries else None
    rows, columns = layout.image_grid
    cells = image_cells(layout)[torch.tensor(queries, dtype=torch.long)]  # (Q)
    vertical = ((cells.double() // columns + 0.5) / rows - float(place[0])).square()
    horizontal = ((cells.double() % columns + 0.5) / columns - float(place[1])).square()
    distances = (vertical + horizontal).where(cells >= 0, math.inf)
    if not distances.isfinite().any():  # nor if there are no queries
        return None
    return int((distances < distances.min() + 1e-9).nonzero()[-1])
