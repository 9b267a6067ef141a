"""Images for inference: files, arrays and Pillow images as uint8 BGR arrays."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from mmdefocus.datasets.loading import DefocusLoadImage

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')
_CHANNELS = (1, 3, 4)
_DEEP_MODES = ('I', 'F')  # Pillow's modes with more than 8 bits, which its conversion would clip


def read_image(image: str | Path | np.ndarray | Image.Image) -> np.ndarray:
    """Convert an image to the form that the networks' pipelines expect.

    Files may be grey, have a palette, an alpha channel (dropped) or 16 bits (the upper 8 are kept). Their EXIF
    orientation is applied.

    Args:
        image: Path or URL of a file; an array (H, W), (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), uint8, as in OpenCV
            and MMCV; or a Pillow image with 8 bits per channel in any colour mode.

    Returns:
        (H, W, 3), BGR, uint8.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The URL cannot be read.
        TypeError: The image has another type, such as a tensor, or more than 8 bits per channel.
        ValueError: The file is no complete image, or the array has another shape.
    """
    if isinstance(image, str | Path):
        return _read_file(str(image))
    if isinstance(image, Image.Image):
        return _read_pillow(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            'expected a path or URL, a uint8 array (height, width, channels) in BGR or a Pillow image, got '
            f'{type(image).__name__}; {_to_array(image)}'
        )
    return _read_array(image)


def list_images(inputs: str | Path) -> list[str]:
    """List the images to predict: the file or URL itself, or the images directly in a folder, sorted by name.

    Raises:
        FileNotFoundError: The folder has no image.
    """
    if not Path(inputs).is_dir():
        return [str(inputs)]
    found = sorted(str(path) for path in Path(inputs).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise FileNotFoundError(
            f'expected images in folder {str(inputs)!r} ({", ".join(IMAGE_SUFFIXES)}), got none; name a file, or a '
            'folder with images directly in it'
        )
    return found


def check_batch_size(batch_size: Any) -> None:
    """Raise ``ValueError`` unless this is a positive integer."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'batch_size must be an integer from 1, got {batch_size!r}; pass 1 for one image at a time')


def _read_file(path: str) -> np.ndarray:
    try:
        return DefocusLoadImage().transform(dict(img_path=path))['img']
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'image file {path!r} does not exist (current directory {os.getcwd()!r}); expected the path or URL of an '
            'image: correct it'
        ) from error
    except KeyError as error:  # MMEngine has no storage of this scheme
        raise ValueError(
            f'image {path!r} cannot be read: expected a path, or a URL that begins with http:// or https://, got the '
            f'scheme {error}; correct the address'
        ) from error
    except OSError as error:
        raise OSError(
            f'image {path!r} cannot be read ({error}); expected an address of an image: correct it, or download the '
            'image and pass its path'
        ) from error


def _read_pillow(image: Image.Image) -> np.ndarray:
    if image.mode.partition(';')[0] in _DEEP_MODES:
        raise TypeError(
            f"expected a Pillow image with 8 bits per channel, such as mode 'RGB', got {image.mode!r}; scale its "
            "values to 0 to 255 and pass Image.fromarray(values.astype('uint8'))"
        )
    try:
        rgb = ImageOps.exif_transpose(image).convert('RGB')
    except OSError as error:
        raise ValueError(f'the Pillow image {getattr(image, "filename", "")!r} cannot be read ({error})') from error
    return np.ascontiguousarray(np.asarray(rgb)[..., ::-1])


def _read_array(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        raise TypeError(f'expected an image as uint8 from 0 to 255, got {image.dtype}; {_to_bytes(image)}')
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else None
    if channels not in _CHANNELS or image.size == 0:
        raise ValueError(
            'expected an image of shape (height, width) or (height, width, channels) with 1, 3 (BGR) or 4 (BGRA) '
            f'channels, got {image.shape}; {_to_shape(image)}'
        )
    if channels == 3:
        return image
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)


def _to_bytes(image: np.ndarray) -> str:
    if image.dtype == np.uint16:
        return "for 16 bits, pass (array // 256).astype('uint8')"
    if image.dtype.kind == 'f':
        return "for values from 0 to 1, pass (255 * array).round().astype('uint8')"
    return "pass array.astype('uint8') if all values are from 0 to 255"


def _to_shape(image: np.ndarray) -> str:
    if image.size == 0:
        return 'it has no pixels: check how it was read or cropped'
    if image.ndim == 3 and image.shape[0] in _CHANNELS:
        return 'pass array.transpose(1, 2, 0) if the channels are first'
    if image.ndim == 4:
        return 'pass a batch as a list of images, list(array)'
    return 'select the channels to show, such as array[..., :3]'


def _to_array(image: Any) -> str:
    if isinstance(image, Tensor):
        return (
            'for an RGB tensor (3, height, width) from 0 to 1, pass '
            '(255 * tensor).round().byte().permute(1, 2, 0).flip(-1).cpu().numpy()'
        )
    if isinstance(image, bytes):
        return 'for the content of a file, pass Image.open(io.BytesIO(content))'
    if isinstance(image, list):
        return "for nested lists of values from 0 to 255, pass np.array(values, 'uint8')"
    return 'pass an image, or a list of images'
