"""Prediction for files, folders, arrays and Pillow images."""

import copy
import glob
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from rich.console import Console
from rich.progress import Progress

from .errors import UsageError
from .images import IMAGE_SUFFIXES, list_images, read_image
from .results import ClassificationResult, DetectionResult

Task = Literal['detection', 'classification']


class Predictor:
    """A network with weights that predicts images.

    Args:
        cfg: Config, or path of a config file; it is not changed.
        weights: Checkpoint, as a path or URL.
        task: ``detection`` or ``classification``.
        device: Such as ``cuda:1``; by default the first GPU, or the CPU without one.
        strict: Raise an error if the checkpoint does not fit the network, or names other classes than the config.
        amp: Compute in mixed precision.

    Raises:
        UsageError: There are no weights, or they do not fit.
    """

    def __init__(
        self,
        cfg: Config | str | Path,
        weights: str | Path | None,
        task: Task,
        device: str | None = None,
        strict: bool = True,
        amp: bool = False,
    ) -> None:
        name = Path(cfg if isinstance(cfg, str | Path) else cfg.filename or 'the model').stem
        weights = check_weights(weights, name)
        cfg = Config.fromfile(cfg) if isinstance(cfg, str | Path) else copy.deepcopy(cfg)
        self.task = task
        self._inferencer: Any
        if task == 'detection':
            from .detection_inferencer import DetectionInferencer  # imports MMDetection

            self._inferencer = DetectionInferencer(cfg, weights, device, show_progress=False, strict=strict, amp=amp)
            meta = self._inferencer.model.dataset_meta
            self.classes, self.category_ids = meta.get('classes'), meta.get('category_ids')
        else:
            from .classification_inferencer import ClassificationInferencer  # imports MMPreTrain

            self._inferencer = ClassificationInferencer(cfg, weights, device, strict=strict, amp=amp)
            self.classes, self.category_ids = self._inferencer.classes, None
        if self.classes is None:
            message = 'neither the checkpoint nor the config names the classes: results have "class 0" and the like'
            print_log(message, logger='current', level=logging.WARNING)

    def __call__(
        self,
        images: Any,
        threshold: float = 0.3,
        batch_size: int = 1,
        topk: int = 5,
        progress: bool = False,
    ) -> Iterator[Any]:
        """Predict images one batch after the other; arguments and results as for :func:`predict_images`."""
        if not 0 <= threshold <= 1:
            raise UsageError(f'expected a threshold from 0 to 1, got {threshold}; scores are from 0 to 1')
        if topk < 1:
            raise UsageError(f'expected topk of at least 1, got {topk}; give the number of classes to return')
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f'expected a batch size of at least 1, got {batch_size!r}')
        items = find_images(images)
        batches = [items[first : first + batch_size] for first in range(0, len(items), batch_size)]
        return self._predict(_with_time_left(batches) if progress else batches, batch_size, threshold, topk)

    def _predict(self, batches: Iterable[list[Any]], batch_size: int, threshold: float, topk: int) -> Iterator[Any]:
        for batch in batches:
            sources = [item if isinstance(item, str) else read_image(item) for item in batch]
            for data in self._inferencer.preprocess(sources, batch_size):
                samples = self._inferencer.forward(data[1] if self.task == 'detection' else data)
                for source, sample in zip(sources, samples, strict=True):
                    path, image = (source, None) if isinstance(source, str) else (None, source)
                    if self.task == 'detection':
                        yield self._detection(path, image, sample, threshold)
                    else:
                        yield self._classification(path, image, sample, topk)

    def _detection(self, path: str | None, image: np.ndarray | None, sample: Any, threshold: float) -> DetectionResult:
        found = sample.pred_instances.cpu().numpy()
        order = np.argsort(-found.scores, kind='stable')
        order = order[found.scores[order] >= threshold]
        labels = found.labels[order].astype(np.int64)
        height, width = sample.ori_shape[:2]
        ids = self.category_ids
        return DetectionResult(
            path=path,
            scores=found.scores[order].astype(np.float32),
            labels=labels,
            names=self._names(labels),
            image_size=(int(width), int(height)),
            boxes=found.bboxes[order].astype(np.float32).reshape(-1, 4),
            category_ids=None if ids is None else tuple(ids[label] for label in labels),
            masks=found.masks[order].astype(bool) if 'masks' in found else None,
            image=image,
        )

    def _classification(
        self, path: str | None, image: np.ndarray | None, sample: Any, topk: int
    ) -> ClassificationResult:
        scores = sample.pred_score.cpu().numpy().astype(np.float32)
        labels = np.argsort(-scores, kind='stable')[:topk]
        return ClassificationResult(path, scores[labels], labels, self._names(labels), image=image)

    def _names(self, labels: np.ndarray) -> tuple[str, ...]:
        return tuple(f'class {label}' if self.classes is None else str(self.classes[label]) for label in labels)


def predict_images(
    cfg: Config | str | Path,
    weights: str | Path | None,
    images: Any,
    task: Task,
    threshold: float = 0.3,
    batch_size: int = 1,
    device: str | None = None,
    progress: bool = True,
    *,
    topk: int = 5,
    strict: bool = True,
    amp: bool = False,
) -> list[DetectionResult] | list[ClassificationResult]:
    """Predict images.

    Args:
        cfg: Config, or path of a config file.
        weights: Checkpoint, as a path or URL.
        images: See :func:`find_images`.
        task: ``detection`` or ``classification``.
        threshold: Lowest score of a box, from 0 to 1. Classifiers do not use it.
        batch_size: Images that the network sees at a time. The detectors' pipelines pad images of different sizes to
            the largest of the batch, which may change scores a little.
        device: As for :class:`Predictor`.
        progress: Show progress and time left on a terminal.
        topk: Number of classes of a classification. Detectors do not use it.
        strict: As for :class:`Predictor`.
        amp: As for :class:`Predictor`.

    Returns:
        A :class:`DetectionResult` or :class:`ClassificationResult` for each image, in their order.

    Raises:
        UsageError: There are no weights or no images, the weights do not fit, or a number is outside its range.
        ValueError: A file is no complete image, or an array has the wrong shape.
        TypeError: An array is not uint8.
        OSError: A file cannot be read.
    """
    return list(Predictor(cfg, weights, task, device, strict, amp)(images, threshold, batch_size, topk, progress))


def find_images(images: Any) -> list[Any]:
    """List the images that an argument stands for.

    Args:
        images: A file or URL; a folder, for the images directly in it; a pattern such as ``'shots/*.jpg'``, with ``**``
            for all folders below; a uint8 array, (H, W), or in **BGR** order (H, W, 3) as ``cv2.imread`` returns it; a
            Pillow image in any colour mode; or a sequence of these.

    Returns:
        Files, URLs, arrays and Pillow images; those of a folder or pattern sorted by name.

    Raises:
        UsageError: There is no image, or a pattern matches none.
        FileNotFoundError: A folder has no images.
    """
    if isinstance(images, str | Path):
        return _find_files(str(images))
    if not isinstance(images, Sequence | Iterator):
        return [images]
    found = [image for item in images for image in find_images(item)]
    if not found:
        raise UsageError('expected at least one image, got none; name files, a folder or a pattern')
    return found


def _find_files(word: str) -> list[str]:
    if '://' in word or Path(word).exists() or not glob.has_magic(word):
        return list_images(word)
    found = sorted(path for path in glob.glob(word, recursive=True) if Path(path).suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UsageError(
            f"expected a pattern of images ({', '.join(IMAGE_SUFFIXES)}), got '{word}', which matches none from the "
            f'folder {Path.cwd()}; correct it'
        )
    return found


def _with_time_left(batches: list[list[Any]]) -> Iterator[list[Any]]:
    """Show progress and time left on a terminal, below the lines that the program prints there."""
    console = Console(stderr=True)
    redirected = sys.stdout.isatty()  # Rich would write the output of a program into the terminal in place of its file
    with Progress(console=console, redirect_stdout=redirected, disable=not console.is_terminal) as bar:
        yield from bar.track(batches, description='predicting')


def check_weights(weights: str | Path | None, name: str) -> str:
    """Return the checkpoint of a model.

    Raises:
        UsageError: There is none, or the file does not exist.
    """
    if weights is None:
        raise UsageError(
            f'{name} has no published weights, and without weights its predictions are random. Train it on your data '
            f'(mmdefocus train {name} --data DATA), name a checkpoint of such a training (--weights FILE), or see what '
            'results look like (mmdefocus predict --example)'
        )
    if '://' not in str(weights) and not Path(weights).is_file():
        raise UsageError(
            f"checkpoint '{weights}' does not exist; expected the path or the URL of a checkpoint: correct it"
        )
    return str(weights)
