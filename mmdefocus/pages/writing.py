"""A page as one HTML file."""

import base64
import hashlib
import math
import os
import re
from importlib import resources
from pathlib import Path

import jinja2

from .jpeg import embed_picture
from .page import Page
from .parts import Cell, Table

_ORDINARY = re.compile(r'[^a-z0-9]+')


def write_page(page: Page, path: str | Path) -> Path:
    """Write a page as one file that needs neither network nor server.

    The security policy of the file forbids it to load anything. All text appears as text, whatever it contains. Equal
    pages give equal files.

    Args:
        page: What to write.
        path: File; its folder is created.

    Returns:
        The file.

    Raises:
        OSError: The file could not be written.
    """
    folder = resources.files(__package__) / 'template'
    style = folder.joinpath('page.css').read_text('utf-8')
    script = folder.joinpath('page.js').read_text('utf-8')
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        'kind': lambda part: type(part).__name__,
        'embed': embed_picture,
        'cell': format_cell,
        'numeric': _numeric_columns,
        'paragraphs': lambda text: [paragraph for paragraph in re.split(r'\n\s*\n', text) if paragraph.strip()],
    }
    text = environment.from_string(folder.joinpath('page.html').read_text('utf-8')).render(
        page=page,
        anchors=_anchors([section.heading for section in page.sections]),
        policy=(
            f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'"
        ),
        style=style,
        script=script,
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        # File names may hold bytes that are no UTF-8.
        unfinished.write_text(text, 'utf-8', errors='backslashreplace')
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def format_cell(value: Cell) -> str:
    """Format a cell: shares with three decimals, other numbers with four digits, a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '\N{EN DASH}'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return f'{value:,}'.replace(',', '\N{NARROW NO-BREAK SPACE}').replace('-', '\N{MINUS SIGN}')
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e6:
            return f'{value:.0f}'.replace('-', '\N{MINUS SIGN}')
        if 0.01 <= abs(value) < 1:
            return f'{value:.3f}'.replace('-', '\N{MINUS SIGN}')
        text = f'{value:.4g}' if 1e-4 <= abs(value) < 1e6 else f'{value:.2e}'
        return text.replace('-', '\N{MINUS SIGN}')
    return value


def _numeric_columns(table: Table) -> list[bool]:
    """Tell which columns are aligned as numbers."""

    def numbers(index: int) -> bool:
        cells = [row[index] for row in table.rows if row[index] is not None]
        return all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells)

    return [name in table.numeric or numbers(index) for index, name in enumerate(table.columns)]


def _anchors(headings: list[str]) -> list[str]:
    """Return a distinct id for every heading."""
    found: list[str] = []
    for number, heading in enumerate(headings, 1):
        name = _ORDINARY.sub('-', heading.lower()).strip('-') or f'section-{number}'
        found.append(f'{name}-{number}' if name in found else name)
    return found


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
