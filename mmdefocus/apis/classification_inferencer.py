"""MMPreTrain's inferencer, made strict."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from mmdefocus.engine.amp_prediction import predict_in_mixed_precision
from mmdefocus.openmmlab import without_onedl_note

from .class_names import check_number, default_metainfo, find_dataset_meta
from .images import check_batch_size, read_image
from .inferencer_checks import InferencerChecks, check_config_file, check_device
from .weights import load_all_weights

with without_onedl_note():
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.structures import DataSample

    from . import model_index  # noqa: F401 (adds our models to the names that the inferencer knows)


class ClassificationInferencer(InferencerChecks, ImageClassificationInferencer):
    """MMPreTrain's ``ImageClassificationInferencer`` with checks of images and weights.

    It differs from its base in these points:

    - Grey images, images with an alpha channel and Pillow images are accepted.
    - Broken files and files that are not images raise an error that names them.
    - A folder stands for all images in it, sorted by name.
    - Pictures show the best ``topk`` classes.
    - The weights must fit the model.
    - Names of classes are those of the checkpoint, or of the config's data set if the checkpoint has none; names that
      do not fit the model raise an error. For a head with ``predict_classes``, they are the names of these classes.
    - MMDetection's inferencer may run in the same process before it.

    Args:
        model: As for MMPreTrain's inferencer.
        pretrained: As for MMPreTrain's inferencer. With False, the weights are random.
        device: As for MMPreTrain's inferencer.
        classes: Names of the classes that the model predicts, in place of those of the checkpoint.
        topk: Number of classes in a picture; fewer if the model has fewer.
        strict: Raise an error if the checkpoint lacks tensors of the model, has additional ones, has them in other
            shapes, or names other classes than the config.
        amp: Compute in mixed precision.
        **kwargs: As for MMPreTrain's inferencer.

    Raises:
        ValueError: ``topk`` is not positive, PyTorch cannot use the device, or the weights or the names of the classes
            do not fit.
    """

    def __init__(
        self,
        model: str | Path | Config | BaseModel,
        pretrained: bool | str = True,
        device: Any = None,
        classes: Sequence[str] | None = None,
        *,
        topk: int = 5,
        strict: bool = True,
        amp: bool = False,
        **kwargs: Any,
    ) -> None:
        if topk < 1:
            raise ValueError(f'topk must be positive, got {topk}; give the number of classes to show, such as 5')
        check_config_file(model)
        check_device(device)
        super().__init__(model, pretrained, device, classes, **kwargs)
        if amp:
            predict_in_mixed_precision(self.model)
        self.topk = topk
        cfg = getattr(self.model, '_config', Config())
        # A model instance may have its weights already, and then MMPreTrain stored the names of its checkpoint, or, if
        # there are none, the default names of the type of its data set.
        stored = getattr(self.model, '_dataset_meta', None)
        checkpoint: Any = None if stored == default_metainfo(cfg) else dict(meta=dict(dataset_meta=stored))
        if isinstance(pretrained, str) or (pretrained and not isinstance(model, BaseModel)):
            source = pretrained if isinstance(pretrained, str) else _published(self.model)
            if source is not None and kwargs.get('url_mapping'):
                pattern, replacement = kwargs['url_mapping']
                source = re.sub(pattern, replacement, source)
            checkpoint = None if source is None else CheckpointLoader.load_checkpoint(source, map_location='cpu')
            if strict:
                load_all_weights(self.model, checkpoint, source)
        if classes is None:
            self.classes = find_dataset_meta(self.model, checkpoint, cfg, strict).get('classes')
        else:
            check_number(
                classes, self.model, 'the argument classes', 'give a name for each class that the model predicts'
            )

    def _init_pipeline(self, cfg: Config) -> Callable[[dict], dict]:
        # MMDetection's inferencer leaves its scope as the default scope of the process.
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return super()._init_pipeline(cfg)

    def preprocess(self, inputs: Iterable[Any], batch_size: int = 1) -> Iterator[Any]:
        """Read images with :func:`read_image` and transform them → batches for the model."""
        check_batch_size(batch_size)

        def load(item: Any) -> dict:
            image = read_image(item)
            return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])

        samples = map(Compose([load, self.pipeline]), inputs)
        return map(default_collate, self._get_chunk_data(samples, batch_size))

    def best(self, prediction: DataSample) -> DataSample:
        """Return the prediction with the best ``topk`` classes as its labels, in descending order of score."""
        scores = prediction.pred_score
        labels = scores.topk(min(self.topk, len(scores))).indices
        return DataSample().set_pred_score(scores).set_pred_label(labels)

    def visualize(self, ori_inputs: Sequence[Any], preds: Sequence[DataSample], **kwargs: Any) -> Any:
        """Draw the best classes into the images; arguments as for MMPreTrain's inferencer."""
        # The base class reads files itself and expects arrays in RGB.
        inputs = [item if isinstance(item, str) else read_image(item)[..., ::-1] for item in ori_inputs]
        return super().visualize(inputs, [self.best(prediction) for prediction in preds], **kwargs)


def _published(model: BaseModel) -> str | None:
    """Return the URL or path of the weights that MMPreTrain loads into a model built by name or from a config."""
    return model._config.get('load_from') if model._metainfo is None else model._metainfo.weights
