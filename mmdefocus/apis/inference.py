"""Image classification with MMPreTrain's inferencer.

Importing this module adds our models to MMPreTrain's list (see :mod:`mmdefocus.apis.model_index`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.structures import DataSample

import mmdefocus.apis.model_index  # noqa: F401 (names for the inferencer)
from mmdefocus.datasets.loading import DefocusLoadImage

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


def read_image(image: str | Path | np.ndarray) -> np.ndarray:
    """Bring a file or an array into the form that the networks' pipelines take.

    Files may be grey, have a palette, an alpha channel (left out) or 16 bits (the upper 8 are kept), and are turned as
    their EXIF data say.

    Args:
        image: Path or URL of a file; or an array (H, W), (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), uint8, as OpenCV
            and MMCV have it.

    Returns:
        (H, W, 3), BGR, uint8.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: The array is not uint8.
        ValueError: The file is no complete image, or the array has another shape.
    """
    if not isinstance(image, np.ndarray):
        try:
            return DefocusLoadImage().transform(dict(img_path=str(image)))['img']
        except FileNotFoundError as error:
            raise FileNotFoundError(f'image file {str(image)!r} does not exist') from error
    if image.dtype != np.uint8:
        raise TypeError(f'expected an image as uint8 from 0 to 255, got {image.dtype}')
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise ValueError(
            f'expected an image of shape (height, width) or (height, width, channels) with 1, 3 (BGR) or 4 (BGRA) '
            f'channels, got {image.shape}'
        )
    if channels == 3:
        return image
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)


def list_images(inputs: str | Path) -> list[str]:
    """Images to predict: a file or a URL as it is, of a folder its images (not those of folders in it), by name.

    Raises:
        FileNotFoundError: The folder has no image.
    """
    if not Path(inputs).is_dir():
        return [str(inputs)]
    found = sorted(str(path) for path in Path(inputs).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise FileNotFoundError(f'folder {str(inputs)!r} has no images ({", ".join(IMAGE_SUFFIXES)})')
    return found


class ClassificationInferencer(ImageClassificationInferencer):
    """MMPreTrain's ``ImageClassificationInferencer``, made for all kinds of images, with the best classes in pictures.

    What differs: arrays may be grey or have an alpha channel; broken files raise, with their names; of a folder, all
    images are taken, sorted by name; pictures show the best ``topk`` classes; and MMDetection's inferencer may have run
    before in the same process.

    Args:
        *args: As for MMPreTrain's inferencer.
        topk: Number of classes in a picture, where the model has as many.
        **kwargs: As for MMPreTrain's inferencer.

    Raises:
        ValueError: ``topk`` is not positive.
    """

    def __init__(self, *args: Any, topk: int = 5, **kwargs: Any) -> None:
        if topk < 1:
            raise ValueError(f'topk must be positive, got {topk}')
        super().__init__(*args, **kwargs)
        self.topk = topk

    def _init_pipeline(self, cfg: Config) -> Callable[[dict], dict]:
        # An inferencer of MMDetection leaves its scope as the default one of the process.
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return super()._init_pipeline(cfg)

    def _inputs_to_list(self, inputs: Any) -> list[Any]:
        if isinstance(inputs, str | Path):
            return list_images(inputs)
        return [str(item) if isinstance(item, Path) else item for item in super()._inputs_to_list(inputs)]

    def preprocess(self, inputs: Iterable[Any], batch_size: int = 1) -> Iterator[Any]:
        """Read and transform images, (path, URL or array) → batches for the model."""

        def load(item: str | np.ndarray) -> dict:
            image = read_image(item)
            return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])

        samples = map(Compose([load, self.pipeline]), inputs)
        yield from map(default_collate, self._get_chunk_data(samples, batch_size))

    def best(self, prediction: DataSample) -> DataSample:
        """A prediction whose labels are the best ``topk`` classes, the best first."""
        scores = prediction.pred_score
        labels = scores.topk(min(self.topk, len(scores))).indices
        return DataSample().set_pred_score(scores).set_pred_label(labels)

    def visualize(self, ori_inputs: Sequence[Any], preds: Sequence[DataSample], **kwargs: Any) -> Any:
        """Draw the best classes into the images; arguments as for MMPreTrain's inferencer."""
        # Its own reading of files does; arrays it takes for RGB.
        inputs = [item if isinstance(item, str) else read_image(item)[..., ::-1] for item in ori_inputs]
        return super().visualize(inputs, [self.best(prediction) for prediction in preds], **kwargs)
