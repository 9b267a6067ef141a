"""The numbers of the report of a detector against literal loops, on random data."""

from typing import Any

import numpy as np
import pytest
from random_detections import random_predictions, random_truth

from mmdefocus.evaluation.statistics import DetectionStatistics, analyse_detections

Case = tuple[dict, list[dict], DetectionStatistics]


@pytest.fixture(scope='module', params=range(3))
def case(request: Any) -> Case:
    rng = np.random.default_rng(request.param)
    truth = random_truth(rng, 8)
    found = random_predictions(rng, truth)
    return truth, found, analyse_detections(truth, found)


def _overlap(one: list[float], other: list[float], crowd: int = 0) -> float:
    """Return the IoU; with a crowd, the share of the first box that is inside."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (one[2] * one[3] + (0 if crowd else other[2] * other[3] - common))


def _sorted(found: list[dict]) -> list[dict]:
    return sorted(found, key=lambda one: (-one['score'], one['image_id']))


def _match(truth: dict, found: list[dict], any_class: bool = False) -> list[dict | None]:
    """Return the object of every prediction by descending score."""
    taken: set[int] = set()
    matches = []
    for one in _sorted(found):
        free = [
            ann
            for ann in truth['annotations']
            if ann['image_id'] == one['image_id']
            and (any_class or ann['category_id'] == one['category_id'])
            and (ann['iscrowd'] or ann['id'] not in taken)
            and _overlap(one['bbox'], ann['bbox'], ann['iscrowd']) >= 0.5
        ]
        best = max(
            free, key=lambda ann: (-ann['iscrowd'], _overlap(one['bbox'], ann['bbox'], ann['iscrowd'])), default=None
        )
        if best is not None:
            taken.add(best['id'])
        matches.append(best)
    return matches


def _objects(truth: dict, category: int | None = None) -> list[dict]:
    return [
        ann
        for ann in truth['annotations']
        if not ann['iscrowd'] and (category is None or ann['category_id'] == category)
    ]


def _average_precision(right: list[bool], objects: int) -> float:
    points = [(sum(right[: end + 1]) / objects, sum(right[: end + 1]) / (end + 1)) for end in range(len(right))]
    return float(np.mean([max([p for r, p in points if r >= recall], default=0) for recall in np.linspace(0, 1, 101)]))


def test_average_precision(case: Case) -> None:
    truth, found, statistics = case
    matches = list(zip(_sorted(found), _match(truth, found), strict=True))
    for category, one in enumerate(statistics.classes):
        objects = len(_objects(truth, category))
        assert one.objects == objects
        assert one.predictions == sum(prediction['category_id'] == category for prediction in found)
        right = [
            match is not None
            for prediction, match in matches
            if prediction['category_id'] == category and not (match and match['iscrowd'])
        ]
        if not objects:
            assert one.AP50 is one.AP is one.curve is None
            continue
        assert pytest.approx(_average_precision(right, objects), abs=1e-12) == one.AP50
        assert one.curve.precision.mean() == pytest.approx(one.AP50, abs=1e-12)
    assert statistics.table['AP50'] == pytest.approx(np.mean([one.AP50 for one in statistics.classes if one.objects]))
    assert statistics.table['AP'] == pytest.approx(np.mean([one.AP for one in statistics.classes if one.objects]))


def test_best_thresholds(case: Case) -> None:
    truth, found, statistics = case
    matches = list(zip(_sorted(found), _match(truth, found), strict=True))

    for category in (None, *range(len(statistics.classes))):
        objects = len(_objects(truth, category))
        own = [
            (prediction['score'], match is not None)
            for prediction, match in matches
            if category in (None, prediction['category_id']) and not (match and match['iscrowd'])
        ]
        best = statistics.threshold if category is None else statistics.classes[category].threshold
        if not objects or not any(right for _, right in own):
            assert best is None
            continue
        f1 = {}
        for score in {score for score, _ in own}:
            right = [right for other, right in own if other >= score]
            f1[score] = 2 * sum(right) / (len(right) + objects)
        assert best.score == max(f1, key=lambda score: (round(f1[score], 12), score))
        assert best.f1 == pytest.approx(max(f1.values()))
        assert best.f1 == pytest.approx(2 * best.precision * best.recall / (best.precision + best.recall))


def test_confusion(case: Case) -> None:
    truth, found, statistics = case
    shown = [one for one in found if one['score'] >= statistics.threshold.score]
    expected = np.zeros((6, 6), dtype=int)
    matches = _match(truth, shown, any_class=True)
    for prediction, match in zip(_sorted(shown), matches, strict=True):
        if match is None:
            expected[5, prediction['category_id']] += 1
        elif not match['iscrowd']:
            expected[match['category_id'], prediction['category_id']] += 1
    matched = [match['id'] for match in matches if match is not None]
    for ann in _objects(truth):
        expected[ann['category_id'], 5] += ann['id'] not in matched

    assert statistics.confusion.counts.tolist() == expected.tolist()
    assert statistics.confusion.counts[:5].sum() == statistics.objects


def _kind(truth: dict, one: dict) -> str:
    overlaps = [
        (_overlap(one['bbox'], ann['bbox']), ann['category_id'] == one['category_id'])
        for ann in _objects(truth)
        if ann['image_id'] == one['image_id']
    ]
    same = max((iou for iou, same in overlaps if same), default=0)
    other = max((iou for iou, same in overlaps if not same), default=0)
    if 0.1 <= same < 0.5:
        return 'localisation'
    if other >= 0.5:
        return 'classification'
    if same >= 0.5:
        return 'duplicate'
    return 'background' if max(same, other) <= 0.1 else 'both'


def test_kinds_of_errors(case: Case) -> None:
    truth, found, statistics = case
    errors = {error.name: error for error in statistics.errors}
    wrong = [
        (one['score'], _kind(truth, one))
        for one, match in zip(_sorted(found), _match(truth, found), strict=True)
        if match is None
    ]

    for name in ('classification', 'localisation', 'both', 'duplicate', 'background'):
        assert errors[name].count_all == sum(kind == name for _, kind in wrong)
        assert errors[name].count == sum(kind == name and score >= statistics.threshold.score for score, kind in wrong)
        assert 0 <= errors[name].delta_ap <= 1 - statistics.table['AP50']
    assert errors['false positives'].count_all == len(wrong)
    assert [one.error for one in statistics.false_positives] == [kind for _, kind in wrong][:24]
    found_ids = {match['id'] for match in _match(truth, found) if match and not match['iscrowd']}
    assert errors['false negatives'].count_all == statistics.objects - len(found_ids) >= errors['missed'].count_all
    assert errors['false negatives'].count == statistics.objects - sum(
        group.found for group in statistics.breakdown.size
    )


def test_without_any_error_nothing_is_left_to_gain(case: Case) -> None:
    truth, found, _ = case
    right = [one for one, match in zip(_sorted(found), _match(truth, found), strict=True) if match is not None]

    statistics = analyse_detections(truth, right)

    gains = {error.name: error.delta_ap for error in statistics.errors}
    assert gains.pop('missed') == pytest.approx(gains.pop('false negatives'))
    assert set(gains.values()) == {0.0}


def test_every_breakdown_has_all_objects(case: Case) -> None:
    _, _, statistics = case
    shown = next(error.count for error in statistics.errors if error.name == 'false positives')
    for groups in vars(statistics.breakdown).values():
        assert sum(group.objects for group in groups) == statistics.objects
        assert sum(group.found for group in groups) == round(statistics.threshold.recall * statistics.objects)
        assert sum(group.false_positives for group in groups) == shown


def test_crowding_counts_objects_that_are_nearer_than_the_size_of_a_box(case: Case) -> None:
    truth, _, statistics = case
    neighbours = []
    for ann in _objects(truth):
        x, y, width, height = ann['bbox']
        number = 0
        for other in _objects(truth):
            if other is not ann and other['image_id'] == ann['image_id']:
                left, top, other_width, other_height = other['bbox']
                across = max(left - x - width, x - left - other_width, 0)
                down = max(top - y - height, y - top - other_height, 0)
                number += (across**2 + down**2) ** 0.5 < (width * height) ** 0.5
        neighbours.append(number)

    assert [group.objects for group in statistics.breakdown.crowding] == np.histogram(neighbours, [0, 1, 2, 4, 100])[
        0
    ].tolist()
