"""Scores over depth as a picture."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...pages.colours import CURVES, DASHES
from ..report_data import NetworkReport
from ..scores import SCORES
from .selection import relative_depth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = 'os^Dv'


def draw_scores(group: Sequence[NetworkReport], image_name: str) -> 'Figure | None':
    """Draw one panel per score: mean over the heads, with a band of one standard deviation; None without scores."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for report in group for name in report.scores))
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(3.4 * columns, 5), 1.2 + 2.4 * rows), layout='constrained')
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, name in zip(axes, names, strict=False):
        for number, report in enumerate(group):
            heads = [values[~values.isnan()].double() for values in report.scores.get(name, [])]
            existing = [(layer, values) for layer, values in zip(report.layers, heads, strict=False) if len(values)]
            depths = [100 * relative_depth(report, layer) for layer, _ in existing]
            means = [values.mean().item() for _, values in existing]
            spread = [values.std(correction=0).item() for _, values in existing]
            colour = CURVES[number % len(CURVES)]
            low = [mean - std for mean, std in zip(means, spread, strict=True)]
            high = [mean + std for mean, std in zip(means, spread, strict=True)]
            axis.fill_between(depths, low, high, color=colour, alpha=0.15, linewidth=0)
            style = {'linestyle': DASHES[number % 4], 'marker': _MARKERS[number % 5], 'markersize': 4}
            axis.plot(depths, means, color=colour, **style)
        axis.set_title(SCORES[name].title if name in SCORES else name, fontsize=10, parse_math=False)
        axis.set_xlabel('relative depth in %', fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    heading = f'Scores over depth · {image_name}\nmean ± standard deviation over heads'
    figure.suptitle(heading, fontsize=10, parse_math=False)
    legend = figure.legend(axes[0].lines, [report.label for report in group], loc='outside lower center', fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
