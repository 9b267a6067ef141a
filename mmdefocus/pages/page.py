"""The content of a page."""

from dataclasses import dataclass, field

from .parts import Part, Text


@dataclass(frozen=True)
class Section:
    """A heading with its parts.

    Attributes:
        heading: Heading, which the table of contents lists.
        parts: Content.
        note: Explanation under the heading.
    """

    heading: str
    parts: tuple[Part, ...]
    note: str = ''


@dataclass
class Page:
    """A page of sections.

    Attributes:
        title: Title of the page.
        subtitle: One line under it.
        sections: Sections in their order; :meth:`add` appends one.
    """

    title: str
    subtitle: str = ''
    sections: list[Section] = field(default_factory=list)

    def add(self, heading: str, *parts: Part | str, note: str = '') -> None:
        """Append a section.

        Args:
            heading: Its heading.
            *parts: Its content. A string is a :class:`Text`.
            note: Explanation under the heading.
        """
        self.sections.append(Section(heading, tuple(Text(p) if isinstance(p, str) else p for p in parts), note))
