"""Figures of matplotlib as SVG elements of a page."""

import hashlib
import io
import re
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

_SVG = 'http://www.w3.org/2000/svg'
_HREF = '{http://www.w3.org/1999/xlink}href'
_REFERENCE = re.compile(r'url\(#([^)]+)\)')
_INK = '#010203'  # no other mark has this colour: the page replaces it by that of its text, in light and in dark
SETTINGS: Any = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'mmdefocus',
    'font.size': 9,
    'text.color': _INK,
    'text.parse_math': False,
    'axes.edgecolor': _INK,
    'axes.labelcolor': _INK,
    'axes.facecolor': 'none',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.formatter.use_mathtext': False,
    'axes.unicode_minus': True,
    'grid.color': _INK,
    'grid.alpha': 0.15,
    'xtick.color': _INK,
    'ytick.color': _INK,
    'legend.frameon': False,
    'hatch.color': _INK,
    'figure.facecolor': 'none',
    'savefig.facecolor': 'none',
}


def figure_to_svg(figure: Figure, description: str) -> str:
    """Return a figure as an ``<svg>`` element for the inside of a page.

    Its text is text in the font and colour of the page. It refers to nothing outside, has no style elements or
    attributes, which the security policy of the page forbids, and is the same for the same figure.

    Args:
        figure: Figure, drawn under ``rc_context(SETTINGS)``.
        description: What it shows, for readers who do not see it.
    """
    file = io.BytesIO()
    with rc_context(SETTINGS):
        figure.savefig(file, format='svg', metadata={'Date': None})
    # The content is matplotlib's own; defusing it would protect from nothing.
    root = ElementTree.fromstring(file.getvalue())
    prefix = f'c{hashlib.sha256(file.getvalue() + description.encode()).hexdigest()[:10]}-'
    for parent in root.iter():
        for child in [child for child in parent if child.tag.endswith(('}metadata', '}style'))]:
            parent.remove(child)
    for element in root.iter():
        _move_style(element)
        element.tag = element.tag.removeprefix(f'{{{_SVG}}}')
        if 'id' in element.attrib:
            element.set('id', prefix + element.attrib['id'])
        if (target := element.attrib.pop(_HREF, None)) is not None:
            element.set('href', f'#{prefix}{target[1:]}' if target.startswith('#') else target)
        for name, value in element.attrib.items():
            element.set(name, _REFERENCE.sub(rf'url(#{prefix}\1)', value).replace(_INK, 'currentColor'))
    box = root.attrib['viewBox']
    root.attrib.clear()
    root.attrib.update({'viewBox': box, 'role': 'img', 'aria-label': description})
    return ElementTree.tostring(root, 'unicode', short_empty_elements=False)


def _move_style(element: ElementTree.Element) -> None:
    """Turn the style attribute of an element into presentation attributes."""
    for declaration in filter(None, map(str.strip, element.attrib.pop('style', '').split(';'))):
        name, value = (part.strip() for part in declaration.split(':', 1))
        if name == 'font':  # "10px 'DejaVu Sans', …", the page has its own family
            if size := re.search(r'[\d.]+px', value):
                element.set('font-size', size[0])
            if re.search(r'\bbold\b|\b[6-9]00\b', value):
                element.set('font-weight', 'bold')
        else:
            element.set(name, value)
