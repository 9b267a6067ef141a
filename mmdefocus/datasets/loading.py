"""Image loading with errors for missing and damaged files."""

import io
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from PIL import Image

from mmdefocus.datasets.decoder_messages import decode_jpeg, is_harmless
from mmdefocus.datasets.errors import DataError, MissingFileError


def strict_loading(pipeline: Sequence[Any]) -> list[Any]:
    """Replace MMCV's ``LoadImageFromFile`` in a pipeline, in any spelling, by :class:`DefocusLoadImage`."""
    return [_strict(step) for step in pipeline]


def _strict(step: Any) -> Any:
    if isinstance(step, dict):
        kind = step.get('type')
        if kind is LoadImageFromFile or (isinstance(kind, str) and kind.rpartition('.')[2] == 'LoadImageFromFile'):
            return dict(step, type=DefocusLoadImage)
    return step


@TRANSFORMS.register_module()
class DefocusLoadImage(LoadImageFromFile):
    """MMCV's ``LoadImageFromFile`` with errors for missing, unreadable, truncated, damaged and mis-sized images.

    These files are errors as well:

    - Truncated files: some versions of OpenCV fill the missing part with grey.
    - JPEG files whose data libjpeg reports as corrupt: the pixels after the damage are wrong.
    - Images whose size differs from their annotation (``height`` and ``width``, if the data set has them): their boxes
      would be wrong.

    Args:
        allow_corrupt: Accept images with corrupt data as decoded, with a warning that names them.
        **kwargs: As for MMCV's ``LoadImageFromFile``.

    Raises:
        ValueError: ``ignore_empty`` is on, which would skip images, or the deprecated ``file_client_args`` is set.
    """

    def __init__(self, allow_corrupt: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allow_corrupt = allow_corrupt
        if self.file_client_args is not None:
            raise ValueError('file_client_args is deprecated; use backend_args')
        if self.ignore_empty:
            raise ValueError('ignore_empty=True would skip unreadable images silently; repair or remove them instead')

    def transform(self, results: dict) -> dict:
        """Load ``results['img_path']``.

        Args:
            results: Needs ``img_path``.

        Returns:
            ``results`` with ``img`` of shape (H, W, C), BGR, uint8 or float32, and ``img_shape`` and ``ori_shape``.

        Raises:
            MissingFileError: The file does not exist.
            DataError: The file is no image, is truncated or corrupt, or its size differs from its annotation.
        """
        path = results['img_path']
        try:
            data = fileio.get(path, backend_args=self.backend_args)
        except IsADirectoryError as error:
            raise DataError(
                f'expected an image file, got the directory {path!r}; check data_root, data_prefix and the file_name '
                'of the annotation'
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFileError(
                f'image file {path!r} does not exist; check data_root, data_prefix and the file_name of the annotation'
            ) from error
        image, complaint = decode_image(path, data, self.color_type, self.imdecode_backend)
        if complaint is not None:
            self._report(path, complaint)
        shape = image.shape[:2]
        expected = (results.get('height', shape[0]), results.get('width', shape[1]))
        if shape != expected:
            raise DataError(
                f'image file {path!r} has {shape[1]}x{shape[0]} pixels (width x height) but its annotation says '
                f'{expected[1]}x{expected[0]}; correct the annotation file or the image'
            )
        results['img'] = image.astype('float32') if self.to_float32 else image
        results['img_shape'] = shape
        results['ori_shape'] = shape
        return results

    def _report(self, path: str, complaint: str) -> None:
        message = f'image file {path!r} is damaged ({complaint})'
        if not self.allow_corrupt and not is_harmless(complaint):
            raise DataError(
                f'{message}, and part of its pixels are wrong; restore it, or remove it and its annotations, or accept '
                "such images with dict(type='DefocusLoadImage', allow_corrupt=True) in the pipeline"
            )
        print_log(message, logger='current', level=logging.WARNING)


def decode_image(
    path: str, data: bytes, color_type: str = 'color', backend: str = 'cv2'
) -> tuple[np.ndarray, str | None]:
    """Decode the whole content of an image file.

    Args:
        path: Name of the file in messages.
        data: Its content.
        color_type: As for ``mmcv.imfrombytes``.
        backend: As for ``mmcv.imfrombytes``.

    Returns:
        Pixels of shape (H, W, C), BGR, and libjpeg's warning about damaged data or None.

    Raises:
        DataError: The file is no image, or is truncated.
    """
    truncation = find_truncation(data)
    if truncation is not None:
        raise DataError(
            f'image file {path!r} is truncated ({truncation}); expected the whole file: restore it, or remove it '
            'and its annotations'
        )
    decode = partial(mmcv.imfrombytes, data, flag=color_type, backend=backend)
    try:
        image, complaint = decode_jpeg(decode) if data.startswith(b'\xff\xd8') else (decode(), None)
    except Exception as error:
        raise DataError(_unreadable(path, data)) from error
    if image is None:
        raise DataError(_unreadable(path, data))
    return image, complaint


def find_truncation(data: bytes) -> str | None:
    """Return what is missing if an image file ends early, else None.

    Args:
        data: Content of the file.
    """
    if _looks_complete(data):
        return None
    # Files with additional bytes at the end get here too, so only a full decoding can decide.
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError as error:
        return str(error)
    return None


def _unreadable(path: str, data: bytes) -> str:
    what = 'it is empty' if not data else f'it has {len(data)} bytes and begins with {bytes(data[:12])!r}'
    return (
        f'image file {path!r} cannot be decoded ({what}); expected a format that OpenCV reads, such as JPEG or PNG: '
        'convert or repair it, or remove it and its annotations'
    )


def _looks_complete(data: bytes) -> bool:
    """Test for the end marks of JPEG and PNG, at little cost; return True for other formats."""
    if data.startswith(b'\xff\xd8'):
        return data.rfind(b'\xff\xd9') > data.rfind(b'\xff\xda')
    if data.startswith(b'\x89PNG'):
        return data.rfind(b'IEND') > 0
    return True
