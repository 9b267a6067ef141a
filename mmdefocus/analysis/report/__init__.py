"""Reports of what networks look at: one page for a browser, and pictures."""

from .page import write_page
from .pictures import unique_stems, write_pictures

__all__ = ['unique_stems', 'write_page', 'write_pictures']
