"""Spectra of the band-pass as JSON, as a table and as a figure."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .spectra import LayerSpectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

JSON_VERSION = 1
COLOURS = 'cividis'  # readable with colour blindness
MAX_POINTS = 512  # of a layer in the figure


def spectra_json(spectra: Sequence[LayerSpectrum]) -> str:
    """Return all values as JSON, to six digits: tokens and radians per token; infinite half-lives are null."""
    content = {
        'version': JSON_VERSION,
        'layers': [
            {
                'layer': spectrum.layer,
                'name': spectrum.name,
                'half_lives': _rows(spectrum.half_lives),
                'initial_half_lives': _rows(spectrum.initial_half_lives),
                'frequencies': _rows(spectrum.frequencies),
                'initial_frequencies': _rows(spectrum.initial_frequencies),
            }
            for spectrum in spectra
        ],
    }
    return json.dumps(content, allow_nan=False)


def spectra_markdown(spectra: Sequence[LayerSpectrum]) -> str:
    """Return a table with a row per layer and head: median [10 %, 90 % quantile], initial → learned.

    Heads of Mamba, whose groups share the frequencies, repeat the layer's.
    """
    lines = ['| layer | head | half-life in tokens | frequency in radians per token |', '| --: | --: | :-- | :-- |']
    for spectrum in spectra:
        for head in range(spectrum.half_lives.shape[0]):
            half_life = _change(spectrum.initial_half_lives[head], spectrum.half_lives[head], '.1f')
            frequency = '-'
            if spectrum.frequencies is not None and spectrum.initial_frequencies is not None:
                row = min(head, spectrum.frequencies.shape[0] - 1)
                frequency = _change(spectrum.initial_frequencies[row], spectrum.frequencies[row], '.3f')
            lines.append(f'| {spectrum.layer} | {head} | {half_life} | {frequency} |')
    return '\n'.join(lines) + '\n'


def draw_spectra(spectra: Sequence[LayerSpectrum], path: str | Path) -> None:
    """Draw learned against initial half-lives and frequencies; colours are layers, values on the line did not change.

    Args:
        spectra: One layer or more. Of a layer with more than 512 values, 512 are drawn, chosen at random, always alike.
        path: File to write; its suffix selects the format.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    layers = [spectrum.layer for spectrum in spectra]
    depth = Normalize(min(layers), max(*layers, min(layers) + 1))
    figure = Figure(figsize=(9, 4.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    left.set(xscale='log', yscale='log', title='Half-life (tokens)')
    _scatter(left, [(s.layer, s.initial_half_lives, s.half_lives) for s in spectra], depth)
    right.set(title='Centre frequency (radians per token)')
    _scatter(right, [(s.layer, s.initial_frequencies, s.frequencies) for s in spectra], depth)
    figure.colorbar(
        ScalarMappable(depth, COLOURS), ax=[left, right], label='layer', ticks=layers[:: -(-len(layers) // 8)]
    )
    figure.savefig(path, dpi=150)


def _scatter(axes: 'Axes', values: Sequence[tuple[int, Tensor | None, Tensor | None]], depth: 'Normalize') -> None:
    """Draw learned against initial values, given by layer, in random order: no layer hides the others."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for layer, initial, learned in values:
        if initial is not None and learned is not None:
            chosen = torch.randperm(learned.numel(), generator=generator)[:MAX_POINTS]
            pairs = torch.stack((initial.flatten(), learned.flatten(), torch.full(learned.shape, layer).flatten()), 1)
            parts.append(pairs[chosen])
    axes.set(xlabel='initial', ylabel='learned')
    if not parts:
        axes.text(0.5, 0.5, 'none', ha='center', va='center', transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    points = torch.cat(parts)
    initial, learned, layers = points[torch.randperm(len(points), generator=generator)].T
    axes.plot(initial.aminmax(), initial.aminmax(), color='0.6', linewidth=1, zorder=0)
    axes.scatter(initial, learned, s=9, c=layers, cmap=COLOURS, norm=depth, linewidths=0, alpha=0.7)


def _change(initial: Tensor, learned: Tensor, form: str) -> str:
    quantiles = torch.tensor([0.1, 0.5, 0.9], dtype=learned.dtype)
    texts = []
    for values in (initial, learned):
        low, median, high = (f'{value:{form}}' for value in values.quantile(quantiles).tolist())
        texts.append(f'{median} [{low}, {high}]')
    return ' → '.join(texts)


def _rows(values: Tensor | None) -> list[list[float | None]] | None:
    if values is None:
        return None
    return [[float(f'{value:.6g}') if math.isfinite(value) else None for value in row] for row in values.tolist()]
