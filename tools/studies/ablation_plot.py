"""Plot of ablation results: one point per seed."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_ablation(results: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> None:
    """Plot the results of :func:`studies.ablation.run_ablation`: one panel per metric, one row per variant.

    Every seed is a point; their mean is a line.

    Args:
        results: Return values of :func:`~studies.ablation.run_ablation` by metric.
        path: Picture to write; its suffix selects the format.
    """
    names = list(next(iter(results.values())))
    figure = Figure(figsize=(2 + 3 * len(results), 0.6 + 0.35 * len(names)), layout='constrained')
    axes = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axis, (metric, by_variant) in zip(axes, results.items(), strict=True):
        for row, name in enumerate(names):
            values = by_variant[name]
            axis.plot(values, [row] * len(values), 'o', color=f'C{row}', alpha=0.6)
            axis.plot(statistics.fmean(values), row, '|', color=f'C{row}', markersize=16, markeredgewidth=2)
        axis.set_xlabel(metric)
        axis.grid(axis='x', alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.savefig(path, dpi=100)
