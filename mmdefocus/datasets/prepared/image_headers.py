"""Image files of a folder, and their sizes without decoding."""

import os
from pathlib import Path

from PIL import Image

from mmdefocus.datasets.image_files import IMAGE_SUFFIXES

_EXIF_ORIENTATION = 274


def list_images(folder: Path, nested: bool = False) -> list[Path]:
    """Return the image files of a folder in the order of their names; hidden files and folders are ignored."""
    if nested:
        found = []
        for parent, folders, names in os.walk(folder, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith('.')]
            found += [Path(parent, name) for name in names]
    else:
        found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_file()] if folder.is_dir() else []
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.'))


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; 1, upright, without a readable one."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except OSError:  # Pillow reads a PNG to its end for that; a truncated one still has a size.
        return 1
    return orientation if orientation in range(1, 9) else 1


def read_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of an image as it is shown, after its EXIF rotation; None if the header is unreadable."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = read_orientation(image) in (5, 6, 7, 8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # SyntaxError: broken PNG headers
        return None
    return (height, width) if turned else (width, height)
