"""MMDetection's inferencer, made strict."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn

from mmdefocus.engine.amp_prediction import predict_in_mixed_precision
from mmdefocus.openmmlab import without_onedl_note

from .class_names import find_dataset_meta
from .errors import UsageError
from .images import check_batch_size, read_image
from .inferencer_checks import InferencerChecks, check_config_file, check_device
from .weights import load_all_weights

with without_onedl_note():
    from mmdet.apis import DetInferencer


class DetectionInferencer(InferencerChecks, DetInferencer):
    """MMDetection's ``DetInferencer`` with checks of images and weights.

    It differs from its base in these points:

    - Truncated files, tensors, and arrays that are not uint8 or have the channels first raise an error.
    - Grey images, images with an alpha channel and Pillow images are accepted.
    - The images of a folder are sorted by name.
    - Pictures drawn from arrays have the right colours.
    - The weights must fit the model.
    - Names and colours of the classes are those of the checkpoint, or of the config's data set if the checkpoint has
      none; names that do not fit the model raise an error. Predictions have names and original category ids.

    Args:
        model: As for MMDetection's inferencer.
        weights: As for MMDetection's inferencer.
        device: As for MMDetection's inferencer.
        *args: As for MMDetection's inferencer.
        strict: Raise an error if there is no checkpoint, or if it lacks tensors of the model, has additional ones, has
            them in other shapes, or names other classes than the config.
        amp: Compute in mixed precision.
        **kwargs: As for MMDetection's inferencer.

    Raises:
        ValueError: The weights or the names of the classes do not fit, PyTorch cannot use the device, or the config's
            pipeline does not read colour images.
    """

    def __init__(
        self,
        model: Any = None,
        weights: str | None = None,
        device: str | None = None,
        *args: Any,
        strict: bool = True,
        amp: bool = False,
        **kwargs: Any,
    ) -> None:
        self.strict = strict
        check_config_file(model)
        check_device(device)
        super().__init__(model, weights, device, *args, **kwargs)
        if amp:
            predict_in_mixed_precision(self.model)

    def _load_model_from_metafile(self, model: str) -> Any:
        try:
            return super()._load_model_from_metafile(model)
        except ValueError as error:
            raise UsageError(
                f'expected a config, its path, or the name of a model of MMDetection, got {model!r} ({error}); '
                "DetectionInferencer.list_models('mmdet') lists the names; for a model of mmdefocus, give the path of "
                'its config'
            ) from error

    def _init_model(self, cfg: Config, weights: str | None, device: str = 'cpu') -> nn.Module:
        self._weights = weights
        return super()._init_model(cfg, weights, device)

    def _load_weights_to_model(self, model: Any, checkpoint: dict | None, cfg: Config | None) -> None:
        if self.strict:
            load_all_weights(model, checkpoint, self._weights)
        elif checkpoint is not None:
            _load_checkpoint_to_model(model, checkpoint)
        meta = {'palette': 'random', **find_dataset_meta(model, checkpoint, cfg or Config(), self.strict)}
        model.dataset_meta = meta if self.palette == 'none' else {**meta, 'palette': self.palette}

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = super()._init_pipeline(cfg)
        (index,) = (i for i, step in enumerate(pipeline.transforms) if type(step).__name__ == 'InferencerLoader')
        loader = pipeline.transforms[index].from_file
        if loader.color_type != 'color':
            raise ValueError(f"expected a pipeline that reads images in color_type='color', got {loader.color_type!r}")
        pipeline.transforms[index] = _ReadImage(np.float32 if loader.to_float32 else np.uint8)
        return pipeline

    def preprocess(self, inputs: Sequence[Any], batch_size: int = 1, **kwargs: Any) -> Iterator[Any]:
        """Read images with :func:`read_image` and transform them → (images, batch for the model)."""
        check_batch_size(batch_size)
        return super().preprocess(inputs, batch_size, **kwargs)

    def visualize(self, inputs: Sequence[Any], preds: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """Draw boxes into the images; arguments as for MMDetection's inferencer."""
        # The base class reads files itself and expects arrays in RGB.
        images = [item if isinstance(item, str) else read_image(item)[..., ::-1] for item in inputs]
        return super().visualize(images, preds, *args, **kwargs)

    def pred2dict(self, data_sample: Any, pred_out_dir: str = '') -> dict:
        """Convert a prediction to a dictionary; arguments as for MMDetection's inferencer.

        Returns:
            The base class's entries, and the lists ``label_names``, if the names of the classes are known, and
            ``category_ids``, if the ids of the training's annotation file are; both in the order of ``labels``.
        """
        number = self.num_predicted_imgs
        result = super().pred2dict(data_sample, pred_out_dir)
        for key, source in (('label_names', 'classes'), ('category_ids', 'category_ids')):
            if 'labels' in result and source in self.model.dataset_meta:
                result[key] = [self.model.dataset_meta[source][label] for label in result['labels']]
        if pred_out_dir:
            stem = Path(data_sample.img_path).stem if 'img_path' in data_sample else number
            fileio.dump(result, str(Path(pred_out_dir) / 'preds' / f'{stem}.json'))  # as the base class names it
        return result


class _ReadImage:
    """Pipeline step: image, or MMDetection's dictionary with an image and texts → results as of its loading step."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype

    def __call__(self, item: Any) -> dict:
        results = dict(item) if isinstance(item, dict) else {}
        source = results['img' if 'img' in results else 'img_path'] if results else item
        image = read_image(source)
        if isinstance(source, str):
            results['img_path'] = source
        return dict(results, img=image.astype(self.dtype), img_shape=image.shape[:2], ori_shape=image.shape[:2])
