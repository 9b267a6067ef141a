"""What is known about an image file after it was opened and, unless told otherwise, decoded."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError

from mmdefocus.datasets.decoder_messages import is_harmless
from mmdefocus.datasets.errors import DataError
from mmdefocus.datasets.loading import decode_image, find_truncation

from ..prepared.image_headers import read_orientation

Problem = Literal['missing_file', 'unreadable', 'truncated', 'damaged']

_TRANSVERSE = (5, 6, 7, 8)  # orientations that exchange width and height
# OpenCV, which decodes the images, turns these upright, but no WebP.
_TURNED_FORMATS = ('JPEG', 'MPO', 'PNG', 'TIFF')
_PNG_BIT_DEPTH = 24  # position of the byte
_TIFF_BITS = 258


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image file.

    Attributes:
        problem: Kind of the finding that the file cannot be used, or None.
        reason: Why; empty without a problem.
        size: Width and height in pixels as the loader returns the image, that is, upright; None if unknown.
        orientation: EXIF orientation that the loader applies, 1 to 8; 1 is upright.
        colours: ``'16 bit'`` or ``'CMYK'`` if the colours change on loading; ``'transparent'`` if an alpha channel is
            dropped; empty otherwise.
    """

    problem: Problem | None = None
    reason: str = ''
    size: tuple[int, int] | None = None
    orientation: int = 1
    colours: str = ''


def read_image_facts(path: Path, decode: bool = True) -> ImageFacts:
    """Open an image file.

    Args:
        path: The file.
        decode: Decode all pixels, as training does. Without it, only the header is read, and truncated and damaged
            files go unnoticed.
    """
    try:
        data = path.read_bytes() if decode else None
        with Image.open(io.BytesIO(data) if data is not None else path) as image:
            facts = _read_header(image, data)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        facts = ImageFacts('unreadable', _first_line(error) if data is None else '')
    except OSError as error:
        if not path.exists():
            return ImageFacts('missing_file', 'the file does not exist')
        facts = ImageFacts('unreadable', 'it is a directory' if path.is_dir() else _first_line(error))
        if path.is_dir():
            return facts
    return facts if data is None else _decode(path, data, facts)


def _read_header(image: Image.Image, data: bytes | None) -> ImageFacts:
    orientation = read_orientation(image) if image.format in _TURNED_FORMATS else 1
    width, height = image.size
    # Pillow gives the size of a TIFF as it is after turning.
    if orientation in _TRANSVERSE and image.format != 'TIFF':
        width, height = height, width
    return ImageFacts(size=(width, height), orientation=orientation, colours=_colours(image, data))


def _colours(image: Image.Image, data: bytes | None) -> str:
    bits: object = None
    if image.format == 'PNG' and data is not None:
        bits = data[_PNG_BIT_DEPTH]
    elif image.format == 'TIFF':
        bits = max(image.tag_v2.get(_TIFF_BITS, (8,)))  # type: ignore[attr-defined] # only of TIFF files
    if bits == 16 or image.mode.startswith('I;16'):
        return '16 bit'
    if image.mode == 'CMYK':
        return 'CMYK'
    return 'transparent' if 'A' in image.getbands() or 'transparency' in image.info else ''


def _decode(path: Path, data: bytes, facts: ImageFacts) -> ImageFacts:
    truncation = None if facts.problem else find_truncation(data)
    if truncation is not None:
        return ImageFacts('truncated', truncation)
    try:
        pixels, complaint = decode_image(os.fspath(path), data)
    except DataError:
        return ImageFacts('unreadable', facts.reason or f'OpenCV cannot decode it; it begins with {data[:12]!r}')
    if complaint is not None and not is_harmless(complaint):
        return ImageFacts('damaged', complaint)
    height, width = pixels.shape[:2]
    return ImageFacts(size=(width, height), orientation=facts.orientation, colours=facts.colours)


def _first_line(error: Exception) -> str:
    return str(error).partition('\n')[0]
