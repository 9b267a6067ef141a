"""DefocusCocoMetric gives equal numbers with pycocotools and with faster-coco-eval."""

import builtins
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import coco_metric as mmdet_coco_metric
from pycocotools import mask as masks_of_coco
from pycocotools.cocoeval import COCOeval
from random_detections import random_predictions, random_truth

from mmdefocus.evaluation import DefocusCocoMetric

BACKENDS = ('pycocotools', 'faster')


def _mask(box: list[float]) -> dict:
    """Return an ellipse in the box as a compressed mask of 480 × 480 pixels."""
    y, x = np.mgrid[:480, :480]
    left, top, width, height = box
    inside = ((x - left) / width - 0.5) ** 2 + ((y - top) / height - 0.5) ** 2 < 0.25
    return masks_of_coco.encode(np.asfortranarray(inside.astype(np.uint8)))


def _polygon(box: list[float]) -> list[list[float]]:
    """Return the rhombus in the box."""
    left, top, width, height = box
    return [
        [left, top + height / 2, left + width / 2, top, left + width, top + height / 2, left + width / 2, top + height]
    ]


def _evaluate(truth: dict, predictions: list[dict], path: Path, **options: Any) -> dict[str, float]:
    """Return the metrics of predictions that come as a detector gives them."""
    path.write_text(json.dumps(truth))
    metric = DefocusCocoMetric(ann_file=str(path), **options)
    classes = [category['name'] for category in truth['categories']]
    labels = {category['id']: label for label, category in enumerate(truth['categories'])}
    metric.dataset_meta = dict(classes=classes)
    for image in truth['images']:
        own = [one for one in predictions if one['image_id'] == image['id']]
        boxes = torch.tensor([one['bbox'] for one in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = dict(
            bboxes=boxes,
            scores=torch.tensor([one['score'] for one in own], dtype=torch.float64),
            labels=torch.tensor([labels[one['category_id']] for one in own], dtype=torch.long),
        )
        if 'segm' in options.get('metric', ()):
            found['masks'] = [_mask(one['bbox']) for one in own]
        metric.process({}, [dict(img_id=image['id'], ori_shape=(480, 480), pred_instances=found)])
    return metric.evaluate(len(truth['images']))


def _both(truth: dict, predictions: list[dict], tmp_path: Path, **options: Any) -> list[dict[str, float]]:
    return [_evaluate(truth, predictions, tmp_path / 'truth.json', backend=backend, **options) for backend in BACKENDS]


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record every evaluation: the metrics of MMDetection are rounded to three decimals."""
    evaluations = []
    summarize = COCOeval.summarize

    def record(evaluation: COCOeval) -> None:
        summarize(evaluation)
        evaluations.append(evaluation)

    monkeypatch.setattr(COCOeval, 'summarize', record)
    return evaluations


def _assert_equal_arrays(evaluations: list[Any]) -> None:
    half = len(evaluations) // 2
    assert half > 0
    for one, other in zip(evaluations[:half], evaluations[half:], strict=True):
        assert type(one) is COCOeval
        assert type(other).__name__ == 'FasterCocoEval'
        assert (one.stats == other.stats).all()
        for name in ('precision', 'recall', 'scores'):
            np.testing.assert_array_equal(one.eval[name], other.eval[name])


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('kind', ['numbers from 0', 'strings'])
def test_the_backends_agree_to_the_last_digit(seed: int, kind: str, tmp_path: Path, exact: list[Any]) -> None:
    rng = np.random.default_rng(seed)
    if kind == 'strings':
        truth = random_truth(rng, 5, ids=['e', '10', 'a', '9', 'b'], category_ids=['z', 'm', 'y', 'a', 'k'])
    else:
        truth = random_truth(rng)
    predictions = random_predictions(rng, truth)

    slow, fast = _both(truth, predictions, tmp_path, metric=['bbox', 'proposal'], classwise=True)

    assert json.dumps(slow) == json.dumps(fast)  # NaN of a class without objects included
    assert 0.05 < slow['coco/bbox_mAP'] < 0.95
    assert np.isnan(slow['coco/gnu_precision'])
    assert len(exact) == 4
    _assert_equal_arrays(exact)


def test_the_backends_agree_on_masks(tmp_path: Path, exact: list[Any]) -> None:
    rng = np.random.default_rng(3)
    truth = random_truth(rng, 5, most_objects=5)
    for number, ann in enumerate(truth['annotations']):
        ann['segmentation'] = _polygon(ann['bbox'])
        if ann['iscrowd'] or number % 2:  # a crowd is a mask by definition
            ann['segmentation'] = _mask(ann['bbox'])
            ann['segmentation']['counts'] = ann['segmentation']['counts'].decode()
    predictions = random_predictions(rng, truth, others=2)

    slow, fast = _both(truth, predictions, tmp_path, metric=['bbox', 'segm'], classwise=True)

    assert json.dumps(slow) == json.dumps(fast)
    assert 0.05 < slow['coco/segm_mAP'] < 0.95
    _assert_equal_arrays(exact)


def test_the_backends_agree_on_more_than_100_predictions_of_an_image(tmp_path: Path, exact: list[Any]) -> None:
    """Of the best 100 predictions in mAP, of the best 1000 in mAP_50: pycocotools' rule, and not faster-coco-eval's."""
    rng = np.random.default_rng(4)
    truth = random_truth(rng, 2, ('cat', 'dog'), most_objects=9)
    predictions = random_predictions(rng, truth, others=600)

    slow, fast = _both(truth, predictions, tmp_path, metric='bbox')

    assert slow == fast
    _assert_equal_arrays(exact)
    precision = exact[1].eval['precision'][:, :, :1, 0]
    assert exact[1].stats[0] == pytest.approx(precision[..., 0].mean(), abs=1e-12)
    assert exact[1].stats[0] != pytest.approx(precision[..., 2].mean(), abs=1e-5)


def test_the_backends_agree_on_a_part_of_the_images_and_on_no_prediction(tmp_path: Path, exact: list[Any]) -> None:
    rng = np.random.default_rng(5)
    truth = random_truth(rng)
    some = [dict(image_id=0, category_id=0, bbox=[0.0, 0.0, 9.0, 9.0], score=0.5)]

    slow, fast = _both(truth, some, tmp_path, metric='bbox')
    nothing = _both(truth, [], tmp_path, metric='bbox')

    assert slow == fast
    _assert_equal_arrays(exact)
    assert nothing == [{}, {}]


def test_one_backend_leaves_the_other_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    truth = random_truth(rng, 2)

    _evaluate(truth, random_predictions(rng, truth), tmp_path / 'truth.json', backend='faster')

    assert mmdet_coco_metric.COCOeval is COCOeval


def test_other_metrics_and_limits_fail_in_the_same_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    truth = random_truth(rng, 2)
    predictions = random_predictions(rng, truth)

    for backend in BACKENDS:
        with pytest.raises(KeyError, match='metric should be one of'):
            _evaluate(truth, predictions, tmp_path / 'truth.json', backend=backend, metric='keypoints')
        with pytest.raises(IndexError):  # pycocotools summarises three limits
            _evaluate(truth, predictions, tmp_path / 'truth.json', backend=backend, proposal_nums=(100,))


def test_an_unknown_backend_raises_an_error() -> None:
    with pytest.raises(ValueError, match="backend of DefocusCocoMetric must be 'pycocotools' or 'faster', got 'fast'"):
        DefocusCocoMetric(backend='fast')


def test_several_processes_contradict_the_faster_backend() -> None:
    with pytest.raises(ValueError, match=re.escape('use_mp_eval=True runs pycocotools in several processes, and back')):
        DefocusCocoMetric(backend='faster', use_mp_eval=True)


def test_a_missing_package_raises_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without_faster(name: str, *args: Any) -> Any:
        if name == 'faster_coco_eval':
            raise ImportError(name)
        return load(name, *args)

    monkeypatch.setattr(builtins, '__import__', without_faster)
    DefocusCocoMetric()
    with pytest.raises(ImportError, match='install it with `pip install faster-coco-eval`'):
        DefocusCocoMetric(backend='faster')
