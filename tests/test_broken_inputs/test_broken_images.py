"""Image files that cannot be read, in a training and in the demo."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from broken_inputs import Case, Workplace, each
from PIL import Image

INTRODUCTION = 'Image files in a training (`tools/train.py`) and in `tools/image_demo.py`.'
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    """The valid image in a file format."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def without_part(data: bytes, start: int, stop: int) -> bytes:
    """An image file with a part in zeros."""
    return data[:start] + bytes(stop - start) + data[stop:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def huge_png(side: int) -> bytes:
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b'')


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded('jpeg', exif=exif)


def training(what: str, data: bytes, says: str, options: tuple[str, ...] = ()) -> Case:
    """A case in which an image of a training set has this content."""

    def attempt(place: Workplace) -> str:
        for name in ('a.jpg', 'b.jpg'):
            (place.root / 'images' / name).write_bytes(data)
        return place.train('detector.py', *options)

    return Case(what, attempt, says)


def demo(what: str, data: bytes, says: str) -> Case:
    """A case in which the image of the demo has this content."""

    def attempt(place: Workplace) -> str:
        (place.root / 'photo.jpg').write_bytes(data)
        return place.demo('photo.jpg')

    return Case(what, attempt, says)


def removed(use: Callable[[Workplace], str]) -> Callable[[Workplace], str]:
    def attempt(place: Workplace) -> str:
        (place.root / 'images' / 'a.jpg').unlink()
        return use(place)

    return attempt


def directory(use: Callable[[Workplace], str]) -> Callable[[Workplace], str]:
    def attempt(place: Workplace) -> str:
        (place.root / 'images' / 'a.jpg').unlink()
        (place.root / 'images' / 'a.jpg').mkdir()
        return use(place)

    return attempt


def dangling(place: Workplace) -> str:
    (place.root / 'images' / 'a.jpg').unlink()
    (place.root / 'images' / 'a.jpg').symlink_to('/mnt/gone/a.jpg')
    return place.train()


JPEG, PNG = encoded('jpeg'), encoded('png')
HTML = b'<!DOCTYPE html><html><body>404: Not Found</body></html>'
WORKERS = ('--cfg-options', 'train_dataloader.num_workers=1')
CASES = [
    Case(
        'An image is missing',
        removed(Workplace.train),
        "the first is './images/a.jpg' | lists 2 images | check data_root, data_prefix and the file names",
    ),
    Case(
        'An image is a link to a missing file',
        dangling,
        "'./images/a.jpg' | does not exist | check data_root, data_prefix and the file_name",
    ),
    Case(
        'An image is a directory',
        directory(Workplace.train),
        "got the directory './images/a.jpg' | expected an image file | check data_root, data_prefix",
    ),
    training('An image is empty', b'', 'it is empty | expected a format that OpenCV reads | repair it, or remove it'),
    training(
        'An image is cut off',
        JPEG[:-200],
        'image file is truncated (40 bytes not processed) | expected the whole file | restore it, or remove it',
    ),
    training(
        'An image is cut off, and read in a worker process',
        JPEG[:-200],
        'image file is truncated (40 bytes not processed) | expected the whole file | restore it, or remove it',
        options=WORKERS,
    ),
    training(
        'A PNG image is cut off',
        PNG[:-300],
        'image file is truncated | expected the whole file | restore it, or remove it',
    ),
    training(
        'Part of a JPEG image is overwritten',
        without_part(JPEG, 700, 900),
        'Corrupt JPEG data | part of its pixels are wrong | restore it, or remove it',
    ),
    training(
        'Part of a PNG image is overwritten',
        without_part(PNG, 300, 900),
        'it has 3698 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    training(
        'An image is an HTML page',
        HTML,
        'it has 55 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    training(
        'An image is a text',
        b'cat',
        "it has 3 bytes and begins with b'cat' | expected a format that OpenCV reads | repair it, or remove it",
    ),
    training(
        'An image is an SVG drawing',
        b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"/>',
        "it has 64 bytes and begins with b'<svg | expected a format that OpenCV reads | repair it, or remove it",
    ),
    training(
        'An image is in HEIC format',
        b'\0\0\0\x18ftypheic' + bytes(500),
        'it has 512 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    training(
        'An image is a PDF page',
        b'%PDF-1.7' + bytes(500),
        'it has 508 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    training(
        'An image is a video',
        b'\0\0\0\x20ftypisom' + bytes(500),
        'it has 512 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    training(
        'An image has 1x1 pixels in place of the 40x30 of its annotation',
        encoded('png')[:0] or huge_png(1),
        '1x1 pixels | its annotation says 40x30 | correct the annotation file or the image',
    ),
    training(
        'An image claims 100,000 x 100,000 pixels',
        huge_png(100_000),
        'it has 69 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    training(
        'An image is turned by its EXIF orientation, but its annotation is not',
        turned(),
        '30x40 pixels | its annotation says 40x30 | correct the annotation file or the image',
    ),
    training(
        'An image has another size than its annotation',
        encoded('jpeg') and (lambda f: (Image.fromarray(PIXELS[:20]).save(f, 'png'), f.getvalue())[1])(io.BytesIO()),
        '40x20 pixels | its annotation says 40x30 | correct the annotation file or the image',
    ),
    Case(
        'Demo: the image is missing',
        removed(Workplace.demo),
        "'images/a.jpg' does not exist | expected the path or URL of an image | correct it",
    ),
    Case(
        'Demo: the image is a directory without images',
        directory(Workplace.demo),
        "got none | expected images in folder 'images/a.jpg' (.jpg | name a file, or a folder with images directly",
    ),
    Case(
        'Demo: the address of the image does not exist',
        lambda place: place.demo('http://127.0.0.1:9/cat.jpg'),
        '<urlopen error [Errno 111] | expected an address of an image | correct it, or download the image and',
    ),
    Case(
        'Demo: the address has an unknown scheme',
        lambda place: place.demo('htp://example.org/cat.jpg'),
        "got the scheme 'htp' | image 'htp://example.org/cat.jpg' cannot be read: expected a | correct the address",
    ),
    demo(
        'Demo: the image is empty', b'', 'it is empty | expected a format that OpenCV reads | repair it, or remove it'
    ),
    demo(
        'Demo: the image is cut off',
        JPEG[:-200],
        'image file is truncated (40 bytes not processed) | expected the whole file | restore it, or remove it',
    ),
    demo(
        'Demo: the image is an HTML page',
        HTML,
        'it has 55 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
    demo(
        'Demo: the image claims 100,000 x 100,000 pixels',
        huge_png(100_000),
        'it has 69 bytes and begins with | expected a format that OpenCV reads | repair it, or remove it',
    ),
]


@each(CASES)
def test_broken_images(case, check):
    check(case)
