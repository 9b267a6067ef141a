"""The page of a report: one HTML file that needs neither network nor server."""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from ..report_data import NetworkReport
from .packing import pack_reports

LIMIT = 18_000_000  # characters of all arrays
_SCRIPTS = ('data.js', 'maps.js', 'drawing.js', 'curves.js', 'page.js')


def write_page(
    reports: Sequence[NetworkReport],
    path: str | Path,
    meanings: Mapping[str, str] | None = None,
    title: str = 'What the networks look at',
) -> None:
    """Write a page that shows networks side by side, for every image, on one colour scale per kind of map.

    The file holds its data, styles and script, and its security policy forbids it to load anything else. Text of the
    reports appears as text, whatever it contains. Heads are left out, evenly, where the file would exceed 20 MB; the
    page then says which are kept.

    Args:
        reports: One report per network and image. Networks without a report of an image are absent for that image.
        path: File to write.
        meanings: Meaning of a score in one line, by its name.
        title: Heading of the page.

    Raises:
        AnalysisError: There are no reports, two have the same label and image, or values are NaN or infinite.
        OSError: The file could not be written.
    """
    data = json.dumps(pack_reports(reports, meanings or {}, LIMIT), allow_nan=False, separators=(',', ':'))
    folder = resources.files(__package__) / 'template'
    style = folder.joinpath('page.css').read_text('utf-8')
    script = '\n'.join(folder.joinpath(name).read_text('utf-8') for name in _SCRIPTS)
    text = Template(folder.joinpath('page.html').read_text('utf-8')).substitute(
        title=html.escape(title),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
        style=style,
        script=script,
        data=data.replace('<', '\\u003c'),  # so that no text of a report ends the element
    )
    Path(path).write_text(text, 'utf-8')


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
