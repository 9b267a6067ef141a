"""Object detection with MMDetection's inferencer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmdefocus.datasets.openmmlab  # noqa: F401 (before the data sets are imported otherwise)

# isort: split
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from mmdefocus.apis.images import check_batch_size, list_images, read_image
from mmdefocus.apis.weights import load_all_weights


class DetectionInferencer(DetInferencer):
    """MMDetection's ``DetInferencer`` that takes what is an image, and only that, and weights that fit.

    What differs: files that are cut off, arrays that are not uint8 or have the channels first, and tensors raise;
    arrays may be grey or have an alpha channel, and images of Pillow are taken; the images of a folder are sorted by
    name; pictures of arrays have the colours of the image; weights must fit the model.

    Args:
        *args: As for MMDetection's inferencer.
        strict: Raise if the checkpoint lacks tensors of the model, has others, or has them in other shapes, or if there
            is none.
        **kwargs: As for MMDetection's inferencer.

    Raises:
        ValueError: The weights do not fit, or the config's pipeline does not read colour images.
    """

    def __init__(self, *args: Any, strict: bool = True, **kwargs: Any) -> None:
        self.strict = strict
        super().__init__(*args, **kwargs)

    def _init_model(self, cfg: Config, weights: str | None, device: str = 'cpu') -> nn.Module:
        self._weights = weights
        return super()._init_model(cfg, weights, device)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict | None, cfg: Config | None) -> None:
        if self.strict:
            load_all_weights(model, checkpoint, self._weights)
        super()._load_weights_to_model(model, checkpoint, cfg)

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = super()._init_pipeline(cfg)
        (index,) = (i for i, step in enumerate(pipeline.transforms) if type(step).__name__ == 'InferencerLoader')
        loader = pipeline.transforms[index].from_file
        if loader.color_type != 'color':
            raise ValueError(f"expected a pipeline that reads images in color_type='color', got {loader.color_type!r}")
        pipeline.transforms[index] = _ReadImage(np.float32 if loader.to_float32 else np.uint8)
        return pipeline

    def _inputs_to_list(self, inputs: Any) -> list[Any]:
        if isinstance(inputs, str | Path):
            return list_images(inputs)
        return [str(item) if isinstance(item, Path) else item for item in super()._inputs_to_list(inputs)]

    def preprocess(self, inputs: Sequence[Any], batch_size: int = 1, **kwargs: Any) -> Iterator[Any]:
        """Read and transform images, as :func:`read_image` takes them → (images, batch for the model)."""
        check_batch_size(batch_size)
        return super().preprocess(inputs, batch_size, **kwargs)

    def visualize(self, inputs: Sequence[Any], preds: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Draw boxes into the images; arguments as for MMDetection's inferencer."""
        # Its own reading of files does; arrays it takes for RGB.
        images = [item if isinstance(item, str) else read_image(item)[..., ::-1] for item in inputs]
        return super().visualize(images, preds, *args, **kwargs)


class _ReadImage:
    """Step of a pipeline: an image, or MMDetection's dictionary with one and texts, → what its loading steps give."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype

    def __call__(self, item: Any) -> dict:
        results = dict(item) if isinstance(item, dict) else {}
        source = results['img' if 'img' in results else 'img_path'] if results else item
        image = read_image(source)
        if isinstance(source, str):
            results['img_path'] = source
        return dict(results, img=image.astype(self.dtype), img_shape=image.shape[:2], ori_shape=image.shape[:2])
