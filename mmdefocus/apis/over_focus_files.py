"""Files of the report on what networks look at: page, pictures, tables and spectra."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdefocus.analysis.report import unique_stems, write_page, write_pictures
from mmdefocus.analysis.report_data import NetworkReport
from mmdefocus.analysis.scores import SCORES, ScoreTable
from mmdefocus.analysis.spectra import LayerSpectrum
from mmdefocus.analysis.spectra_report import draw_spectra, spectra_json

from .map_faithfulness import MapFaithfulness


def write_report(
    folder: str | Path,
    reports: Sequence[NetworkReport],
    tables: Mapping[str, ScoreTable],
    spectra: Mapping[str, Sequence[LayerSpectrum]],
    faithfulness: Mapping[str, MapFaithfulness],
) -> list[Path]:
    """Write ``index.html``, pictures, ``scores.json`` and ``scores.md``.

    With spectra, also ``spectra.json`` and a picture per network; with faithfulness, also ``faithfulness.json``.

    Args:
        folder: Existing folder; files of these names are replaced.
        reports: One report per network and image.
        tables: Scores by label of the network.
        spectra: Band-pass by label; without the networks that have none.
        faithfulness: Faithfulness of maps by label; empty if it was not measured.

    Returns:
        The files.

    Raises:
        OSError: A file cannot be written.
    """
    folder = Path(folder)
    page = folder / 'index.html'
    write_page(reports, page, {name: score.meaning for name, score in SCORES.items()})
    written = [page, *write_pictures(reports, folder)]
    texts = {
        'scores.json': _json({label: json.loads(table.to_json()) for label, table in tables.items()}),
        'scores.md': _scores_page(reports, tables, faithfulness),
    }
    if spectra:
        texts['spectra.json'] = _json({label: json.loads(spectra_json(layers)) for label, layers in spectra.items()})
        for stem, layers in zip(unique_stems(spectra), spectra.values(), strict=True):
            written.append(folder / f'{stem}_band-pass.png')
            draw_spectra(layers, written[-1])
    if faithfulness:
        texts['faithfulness.json'] = _json({label: _areas(measured) for label, measured in faithfulness.items()})
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
        written.append(folder / name)
    return written


def mean_over_layers(table: ScoreTable, name: str) -> float:
    """Return the mean of a score over layers, images and heads; NaN where no layer has it."""
    means = [table.mean_std(name, layer)[0] for layer in table.layers]
    finite = [mean for mean in means if math.isfinite(mean)]
    return sum(finite) / len(finite) if finite else math.nan


def _areas(measured: MapFaithfulness) -> dict[str, Any]:
    areas = {
        name: {curve: values.tolist() for curve, values in curves.items()} for name, curves in measured.areas.items()
    }
    return {'areas': areas, 'notes': list(measured.notes)}


def _scores_page(
    reports: Sequence[NetworkReport],
    tables: Mapping[str, ScoreTable],
    faithfulness: Mapping[str, MapFaithfulness],
) -> str:
    descriptions = {report.label: report.description for report in reports}
    images = list(dict.fromkeys(report.image_name for report in reports))
    count = f'{len(images)} image{"s" * (len(images) > 1)}'
    parts = [f'# Scores\nMean ± standard deviation over {count}: {", ".join(images)}.\n']
    parts += [f'## {label}\n{descriptions[label]}\n\n{table.to_markdown()}' for label, table in tables.items()]
    parts += [f'## Faithfulness of the maps of {label}\n{table.to_markdown()}' for label, table in faithfulness.items()]
    lines = [
        f'- **{score.title}** (`{name}`): {score.meaning}. {score.formula} ({score.source}).'
        for name, score in SCORES.items()
    ]
    return '\n'.join([*parts, '## Scores and their formulas', *lines]) + '\n'


def _json(content: Any) -> str:
    return json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + '\n'
