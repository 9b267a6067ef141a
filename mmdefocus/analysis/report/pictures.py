"""The pictures of a report: networks × layers for every kind of map, and the scores over depth.

Shapes: R and W rows and columns of cells, H and V height and width of a picture in pixels.
"""

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from os.path import splitext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..report_data import NetworkReport
from .palettes import DECADES, magnitudes, signed
from .picture_curves import draw_scores
from .picture_maps import KINDS, CellMap, Kind
from .selection import CLASS_TOKEN, Place, group_by_image, layer_at_depth, relative_depth, shown_depths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

CENTRE = (0.5, 0.5)
_COLUMNS = 4
_SIDE = 2.2  # width of a map in inches
_PIXELS = 220  # the same in pixels
_IMAGE_SHARE = 0.2  # of the grey image in the colours of a map


def write_pictures(
    reports: Sequence[NetworkReport], folder: str | Path, places: Sequence[Place] = (CENTRE, CLASS_TOKEN)
) -> list[Path]:
    """Write a PNG for every image and kind of map, and one of the scores of every image.

    A picture has a row for every network and up to four columns of layers at equal relative depths, and one colour
    scale, which is logarithmic and spans one decade to four, down to the smallest value. Values are shares of the sum
    of magnitudes over the tokens. Names are ``IMAGE_KIND_QUERY.png``, in ASCII letters, digits, dots and hyphens; where
    two images would have the same name, the later one gets a number. A picture that no network could fill is left out.

    Args:
        reports: One report per network and image.
        folder: Folder to write to. A missing one is created.
        places: Query tokens: rows and columns in the image, from 0 to 1, or ``'class token'``. Every network takes its
            nearest query token.

    Returns:
        The files, in the order of the images and kinds.

    Raises:
        AnalysisError: There are no reports, or two have the same label and image.
        OSError: A file could not be written.
    """
    groups = group_by_image(reports)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    stems = unique_stems(splitext(name)[0] for name in groups)
    for (image_name, group), stem in zip(groups.items(), stems, strict=True):
        figures: dict[str, Figure | None] = {}
        for kind in KINDS:
            for place in places if kind.has_query else places[:1]:
                name = '_'.join((kind.name, _place_name(place))) if kind.has_query else kind.name
                figures[name] = draw_maps(group, image_name, kind, place)
        figures['scores'] = draw_scores(group, image_name)
        for name, figure in figures.items():
            if figure is not None:
                path = folder / f'{stem}_{name.replace(" ", "-")}.png'
                figure.savefig(path, dpi=100)
                paths.append(path)
    return paths


def unique_stems(names: Iterable[str]) -> list[str]:
    """Return a name for files for each name: safe on every file system, and different ones if only the case differs."""
    stems: list[str] = []
    for name in names:
        ascii_name = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode()
        stem = re.sub(r'[^A-Za-z0-9.]+', '-', ascii_name).strip('-.')[:80] or 'image'
        taken = {other.lower() for other in stems}
        candidates = (stem if number == 1 else f'{stem}-{number}' for number in range(1, len(stems) + 2))
        stems.append(next(candidate for candidate in candidates if candidate.lower() not in taken))
    return stems


def draw_maps(group: Sequence[NetworkReport], image_name: str, kind: Kind, place: Place) -> 'Figure | None':
    """Draw one kind of map of several networks; None if no network has it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    depths = shown_depths(group, _COLUMNS)
    layers = [[layer_at_depth(report, depth) for depth in depths] for report in group]
    maps = [[kind.make(layer, place) for layer in row] for row in layers]
    shown = [cells for row in maps for cells in row if isinstance(cells, CellMap)]
    if not shown or (kind.is_signed and not any(bool((cells.values < 0).any()) for cells in shown)):
        return None
    norm, colours = _scale(shown, kind.is_signed)
    aspects = [1.0 if kind.is_matrix else report.image.shape[0] / report.image.shape[1] for report in group]
    figure, axes, bar_axis = _grid([_SIDE * aspect for aspect in aspects], len(depths))
    for report, aspect, row_axes, row_layers, row_maps in zip(group, aspects, axes, layers, maps, strict=True):
        for axis, layer, cells in zip(row_axes, row_layers, row_maps, strict=True):
            outside = f', outside {cells.outside:.0%}' if isinstance(cells, CellMap) and cells.outside else ''
            title = f'layer {layer.index} ({relative_depth(report, layer):.0%}{outside})'
            axis.set_title(title, fontsize=9, color='#444444', pad=4)
            _draw_cells(axis, cells, norm, colours, None if kind.is_matrix else report.image)
        label = textwrap.fill(report.label, max(8, round(25 * aspect)), max_lines=3, placeholder=' …')
        row_axes[0].set_ylabel(label, fontsize=9, fontweight='bold', parse_math=False)
    query = f' · query: {_place_name(place)}' if kind.has_query else ''
    heading = f'{kind.name.capitalize()} · {image_name}{query}\n{kind.explanation}'
    top = 1 - 0.08 / figure.get_figheight()
    figure.suptitle(heading, x=0.08 / figure.get_figwidth(), y=top, ha='left', va='top', fontsize=10, parse_math=False)
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=bar_axis)
    if kind.is_signed and norm.vmax is not None:
        ticks = [-norm.vmax, -norm.vmax / 10, 0.0, norm.vmax / 10, norm.vmax]
        bar.set_ticks(ticks)
        bar.ax.yaxis.set_minor_locator(NullLocator())
    elif norm.vmin is not None and norm.vmax is not None and norm.vmax / norm.vmin < 100:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(lambda share, _: f'{100 * share:.3g} %')
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    label = 'share of the sum over the tokens'
    is_short = figure.get_figheight() * bar_axis.get_position().height < 2
    bar_axis.set_ylabel(textwrap.fill(label, 16) if is_short else label, fontsize=8)
    bar_axis.tick_params(labelsize=8)
    return figure


def _grid(heights: Sequence[float], columns: int) -> 'tuple[Figure, list[list[Axes]], Axes]':
    """Return a figure with a row of axes of every height in inches, and an axis for a colour bar.

    A layout by hand is several times as fast as a constrained one.
    """
    from matplotlib.figure import Figure

    left, gap, head, title, right, bottom = 0.65, 0.1, 0.5, 0.3, 0.95, 0.12
    width = left + columns * (_SIDE + gap) + right
    height = head + sum(heights) + title * len(heights) + bottom
    figure = Figure(figsize=(width, height))
    rows, y = [], height - head
    for side in heights:
        y -= title + side
        boxes = [(left + column * (_SIDE + gap), y, _SIDE, side) for column in range(columns)]
        rows.append([figure.add_axes((x / width, y / height, _SIDE / width, side / height)) for x, y, _, side in boxes])
    bar = (width - right + 0.1, bottom, 0.14, height - head - title - bottom)
    return figure, rows, figure.add_axes((bar[0] / width, bar[1] / height, bar[2] / width, bar[3] / height))


def _scale(shown: Sequence[CellMap], is_signed: bool) -> 'tuple[Normalize, Colormap]':
    from matplotlib.colors import LogNorm, SymLogNorm

    values = torch.cat([cells.values[cells.visible].abs() for cells in shown])
    limit = float(values.max()) or 1.0
    if is_signed:
        return SymLogNorm(limit / 100, 0.2, -limit, limit), signed()  # linear below 1 % of the limit
    lowest = min(float(values.min()), limit / 10)  # a decade at least: noise should not look like contrast
    return LogNorm(max(lowest, limit * 10.0**-DECADES), limit), magnitudes()


def _draw_cells(
    axis: 'Axes', cells: CellMap | str, norm: 'Normalize', colours: 'Colormap', image: np.ndarray | None
) -> None:
    from matplotlib.patches import Rectangle

    axis.set_xticks([])
    axis.set_yticks([])
    if isinstance(cells, str):
        axis.text(0.5, 0.5, textwrap.fill(cells, 26), ha='center', va='center', fontsize=8, parse_math=False)
        axis.set_facecolor('#f4f5f7')
        return
    pixels = _render(cells, norm, colours, image)
    axis.imshow(pixels, interpolation='nearest', aspect='auto')
    if cells.query is not None:
        height, width = pixels.shape[0] / cells.values.shape[0], pixels.shape[1] / cells.values.shape[1]
        for colour, line in (('black', 3), ('white', 1.2)):
            corner = (cells.query[1] * width - 0.5, cells.query[0] * height - 0.5)
            axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=line))


def _render(cells: CellMap, norm: 'Normalize', colours: 'Colormap', image: np.ndarray | None) -> np.ndarray:
    """Return a map as a picture (H, V, 3), floats in [0, 1], hatched where the query token sees nothing."""
    from PIL import Image

    rows, columns = cells.values.shape
    ratio = rows / columns if image is None else image.shape[0] / image.shape[1]
    width = max(_PIXELS, columns)
    height = max(round(width * ratio), rows)
    values = cells.values.numpy()
    if norm.vmin is not None and norm.vmin > 0:  # logarithmic: what is smaller has the lowest colour
        values = values.clip(norm.vmin)
    vertical, horizontal = np.arange(height) * rows // height, np.arange(width) * columns // width
    picture = colours(norm(values))[..., :3][vertical][:, horizontal]  # (H, V, 3)
    hidden = ~cells.visible.numpy()[vertical][:, horizontal]  # (H, V)
    stripes = (np.arange(height)[:, None] + np.arange(width)) % 8 < 2
    picture[hidden] = np.where(stripes, 0.58, 0.71)[hidden][:, None]
    if image is None:
        return picture
    grey = np.asarray(Image.fromarray(image).convert('L').resize((width, height))) / 255
    return _IMAGE_SHARE * grey[..., None] + (1 - _IMAGE_SHARE) * picture


def _place_name(place: Place) -> str:
    if isinstance(place, str):
        return place
    return 'centre' if place == CENTRE else f'row {place[0]:.0%} column {place[1]:.0%}'.replace('%', '')
