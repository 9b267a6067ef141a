"""Predictions of a checkpoint for the validation set of its training."""

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.own_data_sets import evaluate_split, read_split
from mmdefocus.apis.runs.run_options import apply_test_options
from mmdefocus.apis.runs.runner import build_runner, dump_predictions
from mmdefocus.datasets.prepared import PreparedData


@dataclass(frozen=True)
class DetectionEvaluation:
    """Predicted boxes.

    Attributes:
        metrics: Metrics of the config's evaluator by name.
        truth: Content of the annotation file, with the evaluated images only.
        predictions: COCO results: dicts with ``image_id``, ``category_id``, ``bbox`` and ``score``.
        paths: Image files by their id.
    """

    metrics: Mapping[str, float]
    truth: Mapping[str, Any]
    predictions: list[dict[str, Any]]
    paths: Mapping[Any, Path]


@dataclass(frozen=True)
class ClassificationEvaluation:
    """Predicted scores.

    Attributes:
        metrics: Metrics of the config's evaluator by name.
        scores: Scores, (N, C) float64.
        labels: True labels, (N,) int64.
        classes: Names of the classes.
        names: Image files, or the numbers of images that are no files.
        pictures: Images that are no files by their name, RGB.
    """

    metrics: Mapping[str, float]
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    pictures: Mapping[str, np.ndarray]


def validation_config(cfg: Config, checkpoint: Path, out: Path, data: PreparedData | None = None) -> Config:
    """Return the config of a test of the validation set.

    Args:
        cfg: Config of the training.
        checkpoint: What to test.
        out: Folder for logs and results.
        data: Data whose split ``val`` is tested; None for the validation set of the config.

    Raises:
        UsageError: The config has no validation set.
    """
    cfg = copy.deepcopy(cfg)
    for name in ('dataloader', 'evaluator'):
        if cfg.get(f'val_{name}') is None:
            raise UsageError(f'the config of the training has no val_{name}, so there is nothing to report on; add it')
        cfg[f'test_{name}'] = copy.deepcopy(cfg[f'val_{name}'])
    cfg.test_cfg = dict(type='TestLoop')
    cfg.work_dir = str(out)
    if data is not None:
        cfg.test_dataloader = read_split(cfg.test_dataloader, data, data.splits['val'])
        cfg.test_evaluator = evaluate_split(cfg.test_evaluator, data, data.splits['val'])
    apply_test_options(cfg, str(checkpoint))
    return cfg


def evaluate_detector(cfg: Config) -> DetectionEvaluation:
    """Test a detector.

    Args:
        cfg: Config of :func:`validation_config`.

    Raises:
        UsageError: No evaluator of the config computes COCO's metrics of boxes.
    """
    metrics_of = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    coco = next((metric for metric in metrics_of if str(metric.get('type')).endswith('CocoMetric')), None)
    if coco is None:
        raise UsageError(
            "the report reads boxes from COCO's evaluation, and val_evaluator of the config has another type; set it "
            "to dict(type='DefocusCocoMetric', ann_file=...)"
        )
    prefix = Path(cfg.work_dir) / 'predictions'
    coco.outfile_prefix = str(prefix)
    runner = build_runner(cfg)
    metrics = runner.test()
    dataset = runner.test_dataloader.dataset
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    paths = {info['img_id']: Path(info['img_path']) for info in infos}
    truth = _truth(coco, paths)
    file = prefix.with_name('predictions.bbox.json')
    predictions = json.loads(file.read_text()) if file.is_file() else []
    return DetectionEvaluation(metrics, truth, predictions, paths)


def evaluate_classifier(cfg: Config) -> ClassificationEvaluation:
    """Test a classifier.

    Args:
        cfg: Config of :func:`validation_config`.

    Raises:
        UsageError: Images have several labels, or the data set does not name its classes.
    """
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    file = Path(cfg.work_dir) / 'predictions.pkl'
    runner = build_runner(cfg)
    dump_predictions(runner, str(file))
    metrics = runner.test()
    samples = pickle.loads(file.read_bytes())  # written a moment ago
    if any(np.asarray(sample['gt_label']).size != 1 for sample in samples):
        raise UsageError('the report explains classifiers with one label per image; this data set has several')
    classes = (runner.test_dataloader.dataset.metainfo or {}).get('classes')
    if classes is None:
        raise UsageError('the validation set does not name its classes; give it metainfo=dict(classes=[...])')
    scores = np.stack([np.asarray(sample['pred_score'], np.float64) for sample in samples])
    labels = np.array([int(np.ravel(sample['gt_label'])[0]) for sample in samples])
    files = {index: str(sample['img_path']) for index, sample in enumerate(samples) if sample.get('img_path')}
    names = tuple(files.get(index, f'image {index}') for index in range(len(samples)))
    dataset = runner.test_dataloader.dataset
    arrays = {name: _picture(dataset, index) for index, name in enumerate(names) if index not in files}
    return ClassificationEvaluation(metrics, scores, labels, tuple(map(str, classes)), names, arrays)


def _picture(dataset: Any, index: int) -> np.ndarray:
    """Return an image of a data set of arrays, which are in BGR, as RGB."""
    array = np.asarray(dataset.get_data_info(index)['img'], np.uint8)
    array = np.repeat(array[..., None], 3, -1) if array.ndim == 2 else array
    return np.ascontiguousarray(array[..., ::-1])


def _truth(coco: Mapping[str, Any], paths: Mapping[Any, Path]) -> dict[str, Any]:
    if coco.get('ann_file') is None:
        raise UsageError('the report needs the annotation file: set ann_file of val_evaluator in the config')
    content = json.loads(Path(coco['ann_file']).read_text('utf-8'))
    return dict(
        content,
        images=[image for image in content['images'] if image['id'] in paths],
        annotations=[one for one in content.get('annotations', []) if one['image_id'] in paths],
    )
