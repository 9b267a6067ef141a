"""What a section of a page consists of."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by empty lines.

    Attributes:
        text: Plain text. Nothing in it is read as markup.
        kind: ``plain``, or a box that says that the text is good news, a warning or an error.
    """

    text: str
    kind: Literal['plain', 'good', 'warning', 'error'] = 'plain'


@dataclass(frozen=True)
class Code:
    """Text in a fixed width, such as a command or a config.

    Attributes:
        text: The text.
        title: If given, the text is folded up under this title.
    """

    text: str
    title: str = ''


@dataclass(frozen=True)
class Table:
    """A table whose columns the reader can sort.

    Attributes:
        columns: Headings.
        rows: One cell per column and row. The first cell is the heading of its row. None and NaN appear as a dash.
        caption: What the table shows.
        numeric: Headings of columns that are aligned as numbers although they have text; columns of numbers always are.

    Raises:
        ValueError: A row has more or fewer cells than there are columns, or `numeric` names no column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ''
    numeric: Collection[str] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f'expected {len(self.columns)} cells in row {number} of a table, got {len(row)}: {row!r}'
                )
        if unknown := sorted(set(self.numeric) - set(self.columns)):
            raise ValueError(f'numeric names {unknown}, which are no columns: {list(self.columns)}')


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        svg: The ``<svg>`` element, as the functions of :mod:`mmdefocus.pages.charts` make it. It is not escaped.
        description: What the drawing shows, for readers who do not see it.
        title: Heading above the drawing.
        numbers: The drawn numbers, which the page shows on request.
    """

    svg: str
    description: str
    title: str = ''
    numbers: Table | None = None


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other, which open larger.

    Attributes:
        pictures: Picture and caption each. A picture is an array (height, width, 3), uint8, RGB, or an image file. A
            file that cannot be read appears as a box with the reason.
        columns: Largest number of pictures beside each other, 1 to 6.

    Raises:
        ValueError: An array has another shape or type, or there are too many columns.
    """

    pictures: Sequence[tuple[np.ndarray | Path, str]] = field(default=())
    columns: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.columns <= 6:
            raise ValueError(f'expected 1 to 6 columns of pictures, got {self.columns}')
        for picture, caption in self.pictures:
            if isinstance(picture, Path):
                continue
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
                raise ValueError(
                    f'expected a picture of shape (height, width, 3) and type uint8 for {caption!r}, '
                    f'got {picture.shape} and {picture.dtype}'
                )


Part = Text | Code | Table | Chart | Pictures
