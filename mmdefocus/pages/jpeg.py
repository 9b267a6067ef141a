"""Pictures as data URLs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

LONGEST = 480  # pixels
QUALITY = 85


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture inside the page.

    Attributes:
        url: ``data:`` URL of a JPEG file; empty if the file could not be read.
        width: Width in pixels.
        height: Height in pixels.
        problem: Why the file could not be read, or empty.
    """

    url: str
    width: int
    height: int
    problem: str = ''


def embed_picture(picture: np.ndarray | Path) -> EmbeddedPicture:
    """Encode an array (height, width, 3), uint8, RGB, or a file, reduced to at most 480 pixels a side.

    A file is turned as its EXIF orientation says, as a viewer of images does.
    """
    if isinstance(picture, Path):
        try:
            with Image.open(picture) as opened:
                image = ImageOps.exif_transpose(opened).convert('RGB')
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return EmbeddedPicture('', 0, 0, f'{picture.name} cannot be read: {error}')
    else:
        image = Image.fromarray(picture)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=QUALITY, optimize=True)
    return EmbeddedPicture(
        f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}', image.width, image.height
    )
