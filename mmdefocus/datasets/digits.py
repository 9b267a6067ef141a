"""Detection images composed of scikit-learn's real 8x8 handwritten digits on textured backgrounds."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from mmdefocus.datasets.staging import staged_directory

# Increase it whenever the same options give other pixels or boxes, so that sets of older versions are recognised.
FORMAT_VERSION = 1
# The collection is ordered by form. The rest is the last three forms and the last 18 digits of the form before them, so
# that other writers wrote nearly all of it.
NUM_TRAIN_GLYPHS = 1397
SPLITS = ('train', 'val')
# Lowest share of full ink at which a pixel belongs to the digit and its box.
INK_THRESHOLD = 0.35
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class DigitsOptions:
    """Options of a digits detection set. Equal options give equal files.

    Args:
        train_images: Number of training images, at least 1.
        val_images: Number of validation images, at least 1; other writers wrote 95.5 % of their digits.
        size: Height and width of every image in pixels.
        digits: Fewest and most digits per image.
        digit_size: Smallest and largest side, in pixels, to which an 8x8 digit is enlarged. The box is tighter.
        max_iou: Largest intersection over union that two boxes of one image may have.
        photos: Cut a quarter of the backgrounds from scikit-learn's two sample photographs.
        seed: Seed of every random choice, at least 0.

    Raises:
        ValueError: A number is out of range, or the digits do not fit into the image.
    """

    train_images: int = 6000
    val_images: int = 200
    size: int = 160
    digits: tuple[int, int] = (1, 4)
    digit_size: tuple[int, int] = (28, 56)
    max_iou: float = 0.02
    photos: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('train_images', 'val_images'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        if not 32 <= self.size <= 427:
            raise ValueError(f'size must be between 32 and 427 pixels, got {self.size}')
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise ValueError(f'digits must be (fewest, most) with 1 <= fewest <= most, got {tuple(self.digits)}')
        smallest, largest = self.digit_size
        if not 8 <= smallest <= largest:
            raise ValueError(f'digit_size must be (min, max) with 8 <= min <= max, got {tuple(self.digit_size)}')
        if largest > self.size:
            raise ValueError(
                f'digits of {largest} pixels do not fit into images of {self.size} pixels; lower digit_size'
            )
        if self.digits[1] * smallest**2 > 0.5 * self.size**2:
            raise ValueError(
                f'{self.digits[1]} digits of {smallest} pixels do not fit side by side into an image of {self.size} '
                'pixels; ask for fewer or smaller digits or a larger size'
            )
        if not 0.0 <= self.max_iou < 1.0:
            raise ValueError(f'max_iou must be in [0, 1), got {self.max_iou}')
        if self.seed < 0:
            raise ValueError(f'seed must not be negative, got {self.seed}')


def make_digits_coco(
    out: str | Path,
    options: DigitsOptions,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write a COCO-format detection set: ``train/``, ``val/`` and ``annotations/instances_{train,val}.json``.

    The set is made in a temporary directory and moved to ``out`` when complete: an interrupted run leaves nothing.

    Args:
        out: Directory of the set.
        options: Options of the set.
        force: Replace a digits set with other options or missing files. Nothing else is ever replaced.
        progress: Called with the number of images done and the total after every image.

    Returns:
        True if the set was made, False if ``out`` already held exactly this set.

    Raises:
        FileExistsError: ``out`` holds something else, or another digits set and ``force`` is off.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problem = _difference(out, options)
        if problem is None:
            return False
        if not force:
            raise FileExistsError(f'{out} {problem}; use --force to replace it, or another --out')
    with staged_directory(out) as fresh:
        _write_set(fresh, options, progress)
    return True


def compose_image(options: DigitsOptions, split: str, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Compose one image. It depends only on the options, the split and the index.

    Args:
        options: Options of the set.
        split: ``'train'`` or ``'val'``.
        index: Index of the image in its split.

    Returns:
        The image, uint8 of shape (size, size, 3) in RGB, and one ``dict(digit=int, bbox=[x, y, w, h])`` per digit
        with the box in whole pixels, tight around the ink.

    Raises:
        RuntimeError: No arrangement of the digits was found.
    """
    rng = np.random.default_rng([options.seed, SPLITS.index(split), index])
    canvas = _background(rng, options)
    images, targets = _glyphs(split)
    boxes: list[dict[str, Any]] = []
    for alpha, pick, x, y in _arrange(rng, options, images):
        h, w = alpha.shape
        patch = canvas[y : y + h, x : x + w]
        ink = _ink_colour(rng, float((patch @ _LUMA).mean()))
        canvas[y : y + h, x : x + w] = patch + alpha[..., None] * (ink - patch)
        boxes.append(dict(digit=int(targets[pick]), bbox=[x, y, w, h]))
    canvas = canvas + rng.normal(0.0, rng.uniform(1.0, 5.0), canvas.shape)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), boxes


def _difference(out: Path, options: DigitsOptions) -> str | None:
    """Describe the difference between the content of ``out`` and the requested set; None without one."""
    wanted = _describe(options)
    for split in SPLITS:
        path = out / 'annotations' / f'instances_{split}.json'
        try:
            content = json.loads(path.read_text())
            found = content['info']['digits']
        except (OSError, ValueError, KeyError, TypeError):
            raise FileExistsError(f'{out} exists and is not a set made by this tool; choose another --out') from None
        if found != wanted:
            changed = [key for key in wanted if found.get(key) != wanted[key]]
            listed = ', '.join(f'{key}={found.get(key)} instead of {wanted[key]}' for key in changed)
            return f'holds a digits set made with other options ({listed})'
        if any(not (out / split / image['file_name']).is_file() for image in content['images']):
            return f'holds a digits set with images missing from {split}/'
    return None


def _describe(options: DigitsOptions) -> dict[str, Any]:
    """Return the options as read back from JSON, with the version of the generator."""
    return json.loads(json.dumps(dict(format_version=FORMAT_VERSION, **asdict(options))))


def _write_set(out: Path, options: DigitsOptions, progress: Callable[[int, int], None] | None) -> None:
    total, done = options.train_images + options.val_images, 0
    (out / 'annotations').mkdir()
    for split in SPLITS:
        (out / split).mkdir()
        content: dict[str, Any] = dict(
            info=dict(
                description="scikit-learn's handwritten digits on textured backgrounds", digits=_describe(options)
            ),
            licenses=[],
            images=[],
            annotations=[],
            categories=[dict(id=digit + 1, name=str(digit), supercategory='digit') for digit in range(10)],
        )
        for index in range(getattr(options, f'{split}_images')):
            pixels, boxes = compose_image(options, split, index)
            name = f'{index:06d}.jpg'
            Image.fromarray(pixels).save(out / split / name, quality=92)
            content['images'].append(dict(id=index + 1, file_name=name, width=options.size, height=options.size))
            for box in boxes:
                content['annotations'].append(
                    dict(
                        id=len(content['annotations']) + 1,
                        image_id=index + 1,
                        category_id=box['digit'] + 1,
                        bbox=box['bbox'],
                        area=box['bbox'][2] * box['bbox'][3],
                        iscrowd=0,
                    )
                )
            done += 1
            if progress is not None:
                progress(done, total)
        (out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


@lru_cache(maxsize=2)
def _glyphs(split: str) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    part = slice(None, NUM_TRAIN_GLYPHS) if split == 'train' else slice(NUM_TRAIN_GLYPHS, None)
    return data.images[part], data.target[part]


@lru_cache(maxsize=1)
def _photos() -> tuple[np.ndarray, ...]:
    return tuple(load_sample_image(name) for name in ('china.jpg', 'flower.jpg'))


def _arrange(
    rng: np.random.Generator, options: DigitsOptions, images: np.ndarray
) -> list[tuple[np.ndarray, int, int, int]]:
    """Draw digits and free positions for them: (alpha, index of the digit, left, top)."""
    count = int(rng.integers(options.digits[0], options.digits[1] + 1))
    for _ in range(5):
        placed: list[tuple[np.ndarray, int, int, int]] = []
        for _ in range(20 * count):
            pick = int(rng.integers(len(images)))
            alpha = _enlarge(rng, images[pick], options.digit_size)
            h, w = alpha.shape
            x = int(rng.integers(0, options.size - w + 1))
            y = int(rng.integers(0, options.size - h + 1))
            others = [(left, top, a.shape[1], a.shape[0]) for a, _, left, top in placed]
            if all(_iou((x, y, w, h), other) <= options.max_iou for other in others):
                placed.append((alpha, pick, x, y))
            if len(placed) == count:
                return placed
    raise RuntimeError(
        f'found no place for {count} digits of {options.digit_size[0]}-{options.digit_size[1]} pixels in an image of '
        f'{options.size} pixels; ask for fewer or smaller digits, or raise max_iou'
    )


def _enlarge(rng: np.random.Generator, glyph: np.ndarray, digit_size: tuple[int, int]) -> np.ndarray:
    """Enlarge an 8x8 digit smoothly and crop it to its ink: float64 opacity in [0, 1] of shape (h, w)."""
    side = int(rng.integers(digit_size[0], digit_size[1] + 1))
    # A margin of one cell lets strokes at the rim fade out as they do elsewhere.
    cells = np.pad(np.rint(glyph * (255 / 16)).astype(np.uint8), 1)
    width = max(8, round(side * rng.uniform(0.85, 1.0)))
    enlarged = Image.fromarray(cells).resize((width * 10 // 8, side * 10 // 8), Image.Resampling.BICUBIC)
    enlarged = enlarged.rotate(float(rng.uniform(-8, 8)), Image.Resampling.BICUBIC)
    alpha = np.asarray(enlarged, dtype=np.float64) / 255
    alpha = np.clip((alpha - 0.35) / (0.8 - 0.35), 0.0, 1.0)
    inked = alpha >= INK_THRESHOLD
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][: digit_size[1], : digit_size[1]]


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    overlap = max(w, 0) * max(h, 0)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)


def _ink_colour(rng: np.random.Generator, ground: float) -> np.ndarray:
    """A colour that differs visibly from the mean brightness of the ground, brighter or darker where both can be."""
    least = 80.0
    brighter_possible, darker_possible = ground + least <= 245, ground - least >= 10
    brighter = brighter_possible and (not darker_possible or rng.random() < 0.5)
    luma = rng.uniform(ground + least, 245) if brighter else rng.uniform(10, ground - least)
    tint = rng.normal(0.0, 30.0, 3)
    return np.clip(luma + tint - tint @ _LUMA, 0, 255)


def _background(rng: np.random.Generator, options: DigitsOptions) -> np.ndarray:
    """A texture, float64 of shape (size, size, 3) in [0, 255]."""
    size = options.size
    kind = rng.choice(
        ['noise', 'gradient', 'stripes'] if not options.photos else ['photo', 'noise', 'gradient', 'stripes']
    )
    if kind == 'photo':
        return _photo_crop(rng, size)
    colours = rng.uniform(30, 225, (2, 3))
    y, x = np.mgrid[0:size, 0:size] / size
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind == 'stripes':
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(2, 12) * along + rng.uniform()))
        colours[1] = colours[0] + rng.uniform(-60, 60, 3)
    elif kind == 'gradient':
        mix = (along - along.min()) / (along.max() - along.min())
    else:
        mix = _octaves(rng, size)
    ground = colours[0] + mix[..., None] * (colours[1] - colours[0])
    return np.clip(ground + rng.uniform(8, 40) * (_octaves(rng, size)[..., None] - 0.5), 0, 255)


def _octaves(rng: np.random.Generator, size: int) -> np.ndarray:
    """Cloud-like noise in [0, 1], shape (size, size): grids of growing fineness and falling weight."""
    total = np.zeros((size, size))
    for octave in range(5):
        cells = 3 * 2**octave
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
        total += 0.6**octave * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    return (total - total.min()) / max(float(total.max() - total.min()), 1.0)


def _photo_crop(rng: np.random.Generator, size: int) -> np.ndarray:
    photo = _photos()[int(rng.integers(2))]
    height, width = photo.shape[:2]
    side = int(rng.integers(min(size, height), height + 1))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    crop = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float64)
