"""The same picture several times in a data set, also resized or in another file format."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from imagehash import phash
from PIL import Image, ImageOps

from mmdefocus.datasets.prepared.source_data import SourceData

# Bits of 64 in which the perceptual hashes of a picture and its copy may differ.
_HASH_BITS = 6
_THUMBNAIL = 32
# JPEG files are decoded at a reduced size of at least so many pixels.
_DRAFT = 256
# Levels of 255. Encoders change single pixels of a picture, but hardly the mean of a block of them: in two photographs,
# JPEG of quality 20 and half the size change at most 10 levels, a shift by one pixel changes 13.
_THUMBNAIL_LEVELS = 6.0
_BLOCK_LEVELS = 10
_BLOCK = 16
_FEWEST_BLOCKS = 16
_SMALLEST_BLOCK = 4
_MOST_BLOCKS = 128
# Nearest pictures that are compared in full.
_MOST_COMPARED = 4


@dataclass(frozen=True)
class Duplicate:
    """Two image files with the same picture.

    Attributes:
        first: File, in the order train, val, test and then of the names the first one with this picture.
        second: Another file.
        splits: Splits of both.
        exact: All pixels are equal; otherwise the picture was resized or encoded again.
    """

    first: Path
    second: Path
    splits: tuple[str, str]
    exact: bool


def find_duplicates(source: SourceData, progress: Callable[[int, int], None] | None = None) -> list[Duplicate]:
    """Find pictures that occur several times, in one split or in several.

    Perceptual hashes and thumbnails of 32×32 pixels (2 KB per image in memory) select candidates, which are decoded
    and compared in 16 to 128 blocks along the longer side, so that similar pictures, such as frames of a video in
    which something moves, are no duplicates. Files that are missing or unreadable are left out.

    Args:
        source: A data set.
        progress: Called with the number of images done and the total after every image.

    Returns:
        A pair for every image whose picture occurred before, with its first occurrence.
    """
    files: dict[Path, str] = {}
    for name, split in source.splits.items():
        for path in sorted(split.image_root / str(image.get('file_name')) for image in split.content['images']):
            files.setdefault(path, name)
    hashes = np.zeros(len(files), np.uint64)
    thumbnails = np.zeros((len(files), _THUMBNAIL, _THUMBNAIL), np.int16)
    firsts: list[tuple[Path, str]] = []
    duplicates = []
    for done, (path, where) in enumerate(files.items(), 1):
        described = _describe(path)
        if described is not None:
            code, thumbnail = described
            near = _nearest(hashes[: len(firsts)], thumbnails[: len(firsts)], code, thumbnail)
            same = next((firsts[one] for one in near if _are_equal(firsts[one][0], path)), None)
            if same is None:
                hashes[len(firsts)], thumbnails[len(firsts)] = code, thumbnail
                firsts.append((path, where))
            else:
                duplicates.append(Duplicate(same[0], path, (same[1], where), _pixels_equal(same[0], path)))
        if progress is not None:
            progress(done, len(files))
    return duplicates


def _describe(path: Path) -> tuple[np.uint64, np.ndarray] | None:
    """Return the perceptual hash and the grey thumbnail of an image; None if it is unreadable."""
    try:
        with Image.open(path) as image:
            image.draft('L', (_DRAFT, _DRAFT))
            grey = ImageOps.exif_transpose(image).convert('L')
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    bits = phash(grey).hash.flatten()
    code = np.packbits(bits).view(np.uint64)[0]
    return code, np.asarray(grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.int16)


def _nearest(hashes: np.ndarray, thumbnails: np.ndarray, code: np.uint64, thumbnail: np.ndarray) -> list[int]:
    """Return the positions of the most similar pictures before, the most similar first."""
    differing = np.unpackbits((hashes ^ code).view(np.uint8).reshape(-1, 8), axis=1).sum(1)
    near = np.flatnonzero(differing <= _HASH_BITS)
    levels = np.abs(thumbnails[near] - thumbnail).mean((1, 2))
    order = np.argsort(levels, kind='stable')[:_MOST_COMPARED]
    return [int(near[one]) for one in order if levels[one] <= _THUMBNAIL_LEVELS]


def _are_equal(first: Path, second: Path) -> bool:
    """Compare two pictures of equal proportions by the mean colours of blocks of the smaller one."""
    pixels = [_colours(path) for path in (first, second)]
    (w1, h1), (w2, h2) = (image.size for image in pixels)
    if abs(w1 * h2 - w2 * h1) > max(w1, w2, h1, h2):
        return False
    width, height = min((w1, h1), (w2, h2))
    side = max(width, height)
    block = max(min(_BLOCK, side / _FEWEST_BLOCKS), _SMALLEST_BLOCK, side / _MOST_BLOCKS)
    blocks = (max(1, round(width / block)), max(1, round(height / block)))
    means = [np.asarray(image.resize(blocks, Image.Resampling.BOX), np.int16) for image in pixels]
    return bool(np.abs(means[0] - means[1]).max() <= _BLOCK_LEVELS)


def _pixels_equal(first: Path, second: Path) -> bool:
    one, other = _colours(first), _colours(second)
    return one.size == other.size and one.tobytes() == other.tobytes()


def _colours(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert('RGB')
