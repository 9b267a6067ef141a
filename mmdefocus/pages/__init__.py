"""Offline HTML pages: text, tables, charts and pictures in one file that loads nothing else."""

from .charts import bars, lines, matrix, points
from .page import Page
from .parts import Cell, Chart, Code, Part, Pictures, Table, Text
from .writing import write_page

__all__ = [
    'Cell',
    'Chart',
    'Code',
    'Page',
    'Part',
    'Pictures',
    'Table',
    'Text',
    'bars',
    'lines',
    'matrix',
    'points',
    'write_page',
]
