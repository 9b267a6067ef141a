"""Charts that are drawn by matplotlib: series differ by colour, marker and line, never by colour alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from .colours import CURVES, DASHES, HATCHES, MARKERS
from .parts import Cell, Chart, Table
from .svg import SETTINGS, figure_to_svg

Series = tuple[Sequence[float], Sequence[float]]
_WIDTH = 6.4  # inches
_ROWS = 100  # of the table of a chart
_WRITTEN = 24  # rows or columns of a matrix whose cells have their numbers
_LEGEND = 12  # entries beside a chart


def lines(
    series: Mapping[str, Series],
    x_label: str = '',
    y_label: str = '',
    *,
    title: str = '',
    description: str = '',
    logarithmic: bool = False,
    limits: tuple[float, float] | None = None,
) -> Chart:
    """Draw one line per series.

    Args:
        series: x and y values by name. Values that are not finite leave a gap, and the description counts them.
        x_label: What the x axis shows, with its unit.
        y_label: What the y axis shows, with its unit.
        title: Heading of the chart.
        description: What it shows; empty: the first, last, smallest and largest value of every series.
        logarithmic: Logarithmic y axis.
        limits: Smallest and largest y of the axis; None: those of the values.

    Raises:
        ValueError: There are no series, or x and y of one have different lengths.
    """
    values = _checked(series)
    description = description or _describe(values, x_label, y_label)
    with rc_context(SETTINGS):
        figure, axes = _axes(3.2)
        for number, (name, (x, y)) in enumerate(values.items()):
            shown = np.isfinite(y)
            axes.plot(
                x,
                np.where(shown, y, np.nan),
                color=CURVES[number % len(CURVES)],
                linestyle=DASHES[number % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                markevery=max(1, math.ceil(len(x) / 12)),
                linewidth=1.5,
                label=name,
            )
        if logarithmic:
            axes.set_yscale('log')
            _plain_ticks(axes.yaxis)
        if limits:
            axes.set_ylim(*limits)
        if all(float(one).is_integer() for x, _ in values.values() for one in x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _finish(figure, axes, x_label, y_label, title, description, _series_table(values, x_label, y_label))


def points(
    series: Mapping[str, Series],
    x_label: str = '',
    y_label: str = '',
    *,
    title: str = '',
    description: str = '',
    logarithmic: bool = False,
) -> Chart:
    """Draw one kind of marker per series. The arguments are those of :func:`lines`; `logarithmic` is for both axes."""
    values = _checked(series)
    description = description or _describe(values, x_label, y_label)
    with rc_context(SETTINGS):
        figure, axes = _axes(3.2)
        for number, (name, (x, y)) in enumerate(values.items()):
            colour, marker = CURVES[number % len(CURVES)], MARKERS[number % len(MARKERS)]
            axes.plot(x, y, color=colour, marker=marker, markersize=8, linestyle='none', label=name)
        axes.margins(0.12)
        if logarithmic:
            axes.set_xscale('log')
            axes.set_yscale('log')
            _plain_ticks(axes.xaxis)
            _plain_ticks(axes.yaxis)
        return _finish(figure, axes, x_label, y_label, title, description, _series_table(values, x_label, y_label))


def bars(
    values: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    x_label: str = '',
    y_label: str = '',
    *,
    title: str = '',
    description: str = '',
) -> Chart:
    """Draw horizontal bars with their numbers.

    Args:
        values: Length by name, or, for several series, length by name for each series: ``{series: {name: length}}``.
            A name that a series lacks has no bar. Values that are not finite have no bar, and the table shows a dash.
        x_label: What the length shows, with its unit.
        y_label: What the names are.
        title: Heading of the chart.
        description: What it shows; empty: the numbers of up to twelve bars.

    Raises:
        ValueError: There are no values.
    """
    several = any(isinstance(value, Mapping) for value in values.values())
    groups = cast(Mapping[str, Mapping[str, float]], values if several else {'': values})
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    if not names:
        raise ValueError('expected at least one bar, got none')
    described = [f'{name} {_short(group[name])}' for group in groups.values() for name in names if name in group]
    more = f' and {len(described) - 12} more' if len(described) > 12 else ''
    description = description or f'Bars of {x_label or "values"}: {", ".join(described[:12])}{more}'
    with rc_context(SETTINGS):
        # The label of the axis is upright, and needs its length.
        figure, axes = _axes(0.9 + max(0.24 * len(names) * max(1, 0.7 * len(groups)), 0.085 * len(y_label)))
        axes.grid(False, axis='y')
        height = 0.8 / len(groups)
        for number, (series, group) in enumerate(groups.items()):
            places = [row + (number - (len(groups) - 1) / 2) * height for row in range(len(names))]
            lengths = [float(group.get(name, math.nan)) for name in names]
            drawn = axes.barh(
                places,
                [length if math.isfinite(length) else 0 for length in lengths],
                height,
                color=CURVES[number % len(CURVES)],
                hatch=HATCHES[number % len(HATCHES)],
                label=series,
            )
            texts = [_bar_label(length) if math.isfinite(length) else '' for length in lengths]
            axes.bar_label(drawn, texts, padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), [_clip(name) for name in names])
        axes.invert_yaxis()
        shown = [length for group in groups.values() for length in group.values()]
        axes.set_xlim(*_with_zero(shown))
        if all(float(length).is_integer() for length in shown):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.6 / len(names) if len(names) > 1 else 0.3)
        columns = [y_label or 'name', *(series or x_label or 'value' for series in groups)]
        rows: list[list[Cell]] = [[name, *(group.get(name) for group in groups.values())] for name in names]
        return _finish(figure, axes, x_label, y_label, title, description, Table(_distinct(columns), rows))


def matrix(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str = '',
    y_label: str = '',
    *,
    title: str = '',
    description: str = '',
) -> Chart:
    """Draw a matrix whose darkness is the share of a cell in its row; small matrices also have the numbers.

    Args:
        values: Numbers that are not negative, shape (rows, columns), for example of a confusion matrix.
        rows: Names of the rows.
        columns: Names of the columns.
        x_label: What the columns are.
        y_label: What the rows are.
        title: Heading of the chart.
        description: What it shows; empty: the largest cells outside the diagonal.

    Raises:
        ValueError: The shape is another, or a number is negative or not finite.
    """
    content = np.asarray(values, float)
    if content.shape != (len(rows), len(columns)) or not content.size:
        raise ValueError(f'expected a matrix of {len(rows)} rows and {len(columns)} columns, got shape {content.shape}')
    if not np.isfinite(content).all() or (content < 0).any():
        raise ValueError('expected numbers of a matrix that are finite and not negative')
    shares = content / np.maximum(content.sum(1, keepdims=True), 1e-300)
    cells = [(rows[i], columns[j], content[i, j]) for i, j in np.ndindex(content.shape) if rows[i] != columns[j]]
    largest = [cell for cell in sorted(cells, key=lambda cell: -cell[2])[:_ROWS] if cell[2]]
    listed = ', '.join(f'{row} and {column}: {_short(value)}' for row, column, value in largest[:5]) or 'none'
    across, down = x_label or 'column', y_label or 'row'
    description = description or f'Matrix of {down} and {across}. Largest cells off the diagonal: {listed}'
    with rc_context(SETTINGS):
        side = min(8.0, max(3.2, 1.4 + 0.3 * max(content.shape)))
        figure, axes = _axes(side)
        axes.grid(False)
        axes.imshow(shares, 'Blues', vmin=0, vmax=1, aspect='auto', interpolation='none')
        if max(content.shape) <= _WRITTEN:
            for (i, j), share in np.ndenumerate(shares):
                if content[i, j]:
                    colour = '#ffffff' if share > 0.6 else '#101010'
                    axes.text(j, i, _short(content[i, j]), ha='center', va='center', color=colour, fontsize=8)
        every = [max(1, math.ceil(count / 40)) for count in content.shape]
        axes.set_yticks(range(0, len(rows), every[0]), [_clip(name, 16) for name in rows[:: every[0]]])
        axes.set_xticks(
            range(0, len(columns), every[1]), [_clip(name, 16) for name in columns[:: every[1]]], rotation=90
        )
        if max(content.shape) <= _WRITTEN:
            body = [[row, *map(_number, line)] for row, line in zip(rows, content, strict=True)]
            numbers = Table(_distinct([f'{down} \\ {across}', *columns]), body)
        else:
            body = [[row, column, _number(value)] for row, column, value in largest]
            numbers = Table(_distinct([down, across, 'value']), body, 'The largest cells off the diagonal')
        return _finish(figure, axes, x_label, y_label, title, description, numbers)


def _plain_ticks(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis without powers."""
    axis.set_major_formatter('{x:g}')
    axis.set_minor_formatter(NullFormatter() if _decades(axis) > 1 else '{x:g}')


def _decades(axis: Axis) -> float:
    low, high = axis.get_view_interval()
    return math.log10(high / low) if low > 0 else 0.0


def _with_zero(lengths: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis that holds bars from zero, with space for their numbers."""
    finite = [float(length) for length in lengths if math.isfinite(length)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    space = 0.14 * (high - low)
    return (low - space if low < 0 else 0.0, high + space) if space else (0.0, 1.0)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure((_WIDTH, height), layout='constrained')
    return figure, figure.subplots()


def _finish(
    figure: Figure, axes: Axes, x_label: str, y_label: str, title: str, description: str, numbers: Table
) -> Chart:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        shown = slice(0, _LEGEND)
        figure.legend(
            handles[shown], [_clip(name) for name in labels[shown]], loc='outside lower center', ncols=3, handlelength=3
        )
    return Chart(figure_to_svg(figure, description), description, title, numbers)


def _checked(series: Mapping[str, Series]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if not series:
        raise ValueError('expected at least one series, got none')
    found = {name: (np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in series.items()}
    for name, (x, y) in found.items():
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f'expected as many x as y values of {name!r}, got shapes {x.shape} and {y.shape}')
    return found


def _describe(series: Mapping[str, tuple[np.ndarray, np.ndarray]], x_label: str, y_label: str) -> str:
    texts = []
    for name, (_, y) in list(series.items())[:_LEGEND]:
        finite = y[np.isfinite(y)]
        gaps = f'; {len(y) - len(finite)} values are not finite' if len(finite) < len(y) else ''
        if not len(finite):
            texts.append(f'{name}: no finite values')
            continue
        text = f'{name}: first {_short(finite[0])}, last {_short(finite[-1])}, smallest {_short(finite.min())}'
        texts.append(f'{text}, largest {_short(finite.max())}{gaps}')
    more = f' and {len(series) - _LEGEND} more' if len(series) > _LEGEND else ''
    return f'{y_label or "Values"} over {x_label or "x"}. {". ".join(texts)}{more}'


def _series_table(series: Mapping[str, tuple[np.ndarray, np.ndarray]], x_label: str, y_label: str) -> Table:
    """Return the numbers of all series; of many, evenly chosen ones."""
    total = sum(len(x) for x, _ in series.values())
    step = max(1, math.ceil(total / _ROWS))
    rows: list[list[Cell]] = [
        [name, _number(x[index]), _number(y[index])]
        for name, (x, y) in series.items()
        for index in sorted({*range(0, len(x), step), len(x) - 1} if len(x) else ())
    ]
    caption = f'Every {step}th and the last of {total} points' if step > 1 else ''
    return Table(_distinct(['series', x_label or 'x', y_label or 'y']), rows, caption)


def _distinct(columns: list[str]) -> list[str]:
    return [f'{name} ({index})' if name in columns[:index] else name for index, name in enumerate(columns)]


def _number(value: float) -> Cell:
    value = float(value)
    if not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _short(value: float) -> str:
    number = float(value)
    return f'{number:.0f}' if number.is_integer() and abs(number) < 1e6 else f'{number:.3g}'


def _bar_label(length: float) -> str:
    return f'{length:.3f}' if 0.001 <= abs(length) < 1 else _short(length)


def _clip(name: str, length: int = 28) -> str:
    return name if len(name) <= length else f'{name[: length - 1]}…'
