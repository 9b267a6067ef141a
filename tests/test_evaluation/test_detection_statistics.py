"""The numbers of the report of a detector, on cases with known answers."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hand_made import predictions_of, truth_of
from random_detections import random_predictions, random_truth

from mmdefocus.evaluation.statistics import analyse_detections

LEFT, RIGHT, FAR = [0, 0, 100, 100], [200, 0, 100, 100], [200, 200, 50, 50]
# IoU with LEFT of 0.25, of 1/9 and below a tenth.
HALF_OFF, MOSTLY_OFF, NEARLY_OFF = [60, 0, 100, 100], [80, 0, 100, 100], [90, 0, 100, 100]


@pytest.fixture(scope='module')
def scene() -> Any:
    """One object per class, and one prediction for every kind of error."""
    truth = truth_of([[('cat', LEFT), ('dog', RIGHT)], [('cat', LEFT)], []])
    found = predictions_of(
        truth,
        (0, 'cat', 0.9, LEFT),
        (0, 'cat', 0.8, LEFT),  # duplicate
        (0, 'cat', 0.7, RIGHT),  # classification
        (0, 'cat', 0.6, FAR),  # background
        (0, 'dog', 0.5, HALF_OFF),  # both
        (1, 'cat', 0.4, HALF_OFF),  # localisation
        (2, 'dog', 0.3, LEFT),  # background
    )
    return analyse_detections(truth, found)


def test_counts_and_classes(scene: Any) -> None:
    assert (scene.images, scene.objects, scene.crowds, scene.predictions) == (3, 3, 0, 7)
    cat, dog = scene.classes
    assert (cat.name, cat.category_id, cat.objects, cat.predictions) == ('cat', 0, 2, 5)
    # One of two cats is found first: recalls up to 0.5 have precision 1, 51 of 101.
    assert pytest.approx(51 / 101) == cat.AP50
    assert (dog.AP, dog.AP50, dog.threshold) == (0, 0, None)
    assert scene.table['AP50'] == pytest.approx(51 / 202)
    assert (scene.table['AP_s'], scene.table['AP_m']) == (None, None)


def test_curve_and_thresholds(scene: Any) -> None:
    cat = scene.classes[0]
    assert (cat.curve.recall == np.linspace(0, 1, 101)).all()
    np.testing.assert_allclose(cat.curve.precision, np.repeat([1, 0], [51, 50]))
    np.testing.assert_array_equal(cat.curve.score, np.repeat([0.9, np.nan], [51, 50]))
    best = cat.threshold
    assert (best.score, best.precision, best.recall, best.f1) == (0.9, 1, 0.5, pytest.approx(2 / 3))
    best = scene.threshold
    assert (best.score, best.precision, best.recall, best.f1) == (0.9, 1, pytest.approx(1 / 3), pytest.approx(0.5))


def test_kinds_of_errors(scene: Any) -> None:
    errors = {error.name: error for error in scene.errors}
    assert {name: error.count_all for name, error in errors.items()} == {
        'classification': 1,
        'localisation': 1,
        'both': 1,
        'duplicate': 1,
        'background': 2,
        'missed': 0,  # a corrected class would find the dog, a corrected box the second cat
        'false positives': 6,
        'false negatives': 2,
    }
    # Only one prediction is shown from 0.9 on, and two objects are missed.
    assert {name: error.count for name, error in errors.items() if error.count} == {'missed': 2, 'false negatives': 2}


def test_what_the_correction_of_errors_brings(scene: Any) -> None:
    gains = {error.name: error.delta_ap for error in scene.errors}
    # The dog is found first, AP 1 instead of 0. Among the cats, one error less does not reach another recall.
    assert gains['classification'] == pytest.approx(1 / 2)
    # Right, wrong, wrong, wrong, right: recalls above 0.5 have precision 2/5.
    assert gains['localisation'] == pytest.approx(50 / 101 * 2 / 5 / 2)
    assert gains['both'] == gains['duplicate'] == gains['background'] == gains['missed'] == 0
    assert gains['false positives'] == 0
    # Without the dog, its class counts as 1; without the second cat, the first one is all there is.
    assert gains['false negatives'] == pytest.approx((1 + 1) / 2 - 51 / 202)


def test_confusion(scene: Any) -> None:
    assert scene.confusion.labels == ('cat', 'dog', 'background')
    assert scene.confusion.threshold == 0.9
    assert scene.confusion.counts.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_confusion_of_all_predictions() -> None:
    truth = truth_of([[('cat', LEFT), ('dog', RIGHT)]])
    found = predictions_of(
        truth,
        (0, 'dog', 0.9, LEFT),  # takes the cat
        (0, 'cat', 0.8, LEFT),  # which is taken
        (0, 'dog', 0.7, RIGHT),
    )

    confusion = analyse_detections(truth, found).confusion

    assert confusion.threshold == 0.7
    assert confusion.counts.tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_worst_false_positives(scene: Any) -> None:
    worst = [(one.image_id, one.error, one.prediction.score) for one in scene.false_positives]
    assert worst == [
        (0, 'duplicate', 0.8),
        (0, 'classification', 0.7),
        (0, 'background', 0.6),
        (0, 'both', 0.5),
        (1, 'localisation', 0.4),
        (2, 'background', 0.3),
    ]
    classification, background, both = scene.false_positives[1:4]
    assert (classification.file_name, classification.prediction.category) == ('0.jpg', 'cat')
    assert classification.prediction.box == (200, 0, 100, 100)
    assert (classification.truth.category, classification.truth.iou) == ('dog', 1)
    assert background.truth is None
    assert (both.truth.category, both.truth.iou) == ('cat', pytest.approx(0.25))


def test_worst_false_negatives() -> None:
    rest = [0, 200, 60, 60]
    truth = truth_of(
        [[('cat', LEFT)], [('cat', LEFT)], [('cat', LEFT)], [('cat', rest)], [('cat', LEFT)], [('cat', FAR)]]
    )
    truth['annotations'].append(dict(id=9, image_id=5, category_id=0, bbox=[*FAR[:3], 60], area=3000, iscrowd=0))
    found = predictions_of(
        truth,
        (5, 'cat', 0.9, FAR),
        *[(3, 'cat', 0.2, [300, 300, 20, 20])] * 30,  # so that the best threshold is above 0.1
        (0, 'dog', 0.8, LEFT),
        (1, 'cat', 0.7, HALF_OFF),
        (2, 'dog', 0.6, MOSTLY_OFF),
        (3, 'dog', 0.5, LEFT),
        (4, 'cat', 0.1, LEFT),
    )

    statistics = analyse_detections(truth, found)

    assert statistics.threshold.score == 0.9
    lost = [(one.image_id, one.reason) for one in statistics.false_negatives]
    assert lost == [(0, 'class'), (1, 'localisation'), (2, 'both'), (4, 'score'), (3, 'nothing'), (5, 'taken')]
    score = statistics.false_negatives[3]
    assert (score.prediction.score, score.prediction.iou, score.truth.box) == (0.1, 1, tuple(LEFT))
    assert statistics.false_negatives[4].prediction is None


def test_an_overlap_of_less_than_a_tenth_is_background() -> None:
    truth = truth_of([[('cat', LEFT)]])
    found = predictions_of(truth, (0, 'cat', 0.9, NEARLY_OFF), (0, 'cat', 0.8, MOSTLY_OFF), (0, 'dog', 0.7, NEARLY_OFF))

    kinds = [(one.error, one.truth.category) for one in analyse_detections(truth, found).false_positives]

    assert kinds == [('background', 'cat'), ('localisation', 'cat'), ('background', 'cat')]


def test_one_object_is_corrected_once() -> None:
    """Of two predictions that a correction would make right, the better one is corrected, the other removed."""
    truth = truth_of([[('cat', LEFT), ('cat', RIGHT)]])
    found = predictions_of(
        truth, (0, 'cat', 0.9, HALF_OFF), (0, 'cat', 0.8, HALF_OFF), (0, 'cat', 0.7, RIGHT), (0, 'cat', 0.1, FAR)
    )

    statistics = analyse_detections(truth, found)

    assert statistics.table['AP50'] == pytest.approx(51 / 101 / 3)
    gains = {error.name: error.delta_ap for error in statistics.errors}
    assert gains['localisation'] == pytest.approx(1 - 51 / 101 / 3)
    assert gains['background'] == 0
    assert gains['false positives'] == pytest.approx(51 / 101 * (1 - 1 / 3))


def test_all_missed_and_corrected_is_perfect() -> None:
    statistics = analyse_detections(truth_of([[('cat', LEFT)]]), [])

    errors = {error.name: (error.count, error.delta_ap) for error in statistics.errors}
    assert errors['missed'] == errors['false negatives'] == (1, 1)


def test_crowds_do_not_count() -> None:
    truth = truth_of([[('cat*', LEFT), ('cat', RIGHT)]])
    found = predictions_of(
        truth, (0, 'cat', 0.9, [0, 0, 50, 50]), (0, 'cat', 0.8, RIGHT), (0, 'cat', 0.7, [20, 0, 50, 50])
    )

    statistics = analyse_detections(truth, found)

    assert (statistics.objects, statistics.crowds) == (1, 1)
    assert statistics.table['AP50'] == pytest.approx(1)
    assert statistics.threshold.f1 == 1
    assert statistics.threshold.score == 0.8
    assert statistics.confusion.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert sum(error.count_all for error in statistics.errors) == 0
    assert statistics.false_positives == statistics.false_negatives == ()
    assert sum(one.count for one in statistics.calibration.bins) == 1
    groups = [(one.name, one.objects, one.found, one.false_positives) for one in statistics.breakdown.size]
    assert groups == [('small', 0, 0, 0), ('medium', 0, 0, 0), ('large', 1, 1, 0)]


def test_breakdown() -> None:
    truth = truth_of(
        [
            [('cat', [0, 0, 20, 20]), ('dog', [30, 0, 20, 20]), ('cat', [300, 300, 90, 10])],  # a gap of 10
            [('cat', [0, 0, 100, 100])],
            [],
        ]
    )
    found = predictions_of(
        truth,
        (0, 'cat', 0.9, [0, 0, 20, 20]),
        (1, 'dog', 0.8, [0, 0, 100, 100]),
        (1, 'cat', 0.7, [0, 0, 100, 100]),
        (2, 'cat', 0.6, [0, 0, 10, 90]),
        (0, 'cat', 0.5, [60, 60, 50, 50]),  # near the dog alone
        (0, 'dog', 0.4, [30, 0, 20, 20]),
    )

    statistics = analyse_detections(truth, found)

    def rows(groups: Any) -> list[tuple]:
        return [(one.name, one.objects, one.found, one.false_positives) for one in groups]

    breakdown = statistics.breakdown
    assert statistics.threshold.score == 0.4
    assert rows(breakdown.size) == [('small', 3, 2, 1), ('medium', 0, 0, 1), ('large', 1, 1, 1)]
    assert rows(breakdown.crowding) == [('0', 2, 1, 2), ('1', 2, 2, 1), ('2 to 3', 0, 0, 0), ('4 or more', 0, 0, 0)]
    assert rows(breakdown.aspect_ratio) == [
        ('very tall', 0, 0, 1),
        ('tall', 0, 0, 0),
        ('square', 3, 3, 2),
        ('wide', 0, 0, 0),
        ('very wide', 1, 0, 0),
    ]
    assert rows(breakdown.objects_in_image) == [
        ('0', 0, 0, 1),
        ('1', 1, 1, 1),
        ('2 to 4', 3, 2, 1),
        ('5 to 9', 0, 0, 0),
        ('10 or more', 0, 0, 0),
    ]
    large = breakdown.size[2]
    assert (large.lowest, large.highest, large.recall, large.average_precision) == (96**2, None, 1, 1)
    assert (breakdown.size[1].recall, breakdown.size[1].average_precision) == (None, None)
    # Small: one of two cats after no error, and the dog.
    assert breakdown.size[0].average_precision == pytest.approx((51 / 101 + 1) / 2)
    assert sum(one.objects for one in breakdown.size_quartile) == 4


def test_calibration() -> None:
    truth = truth_of([[('cat', LEFT), ('cat', RIGHT)]])
    found = predictions_of(
        truth, (0, 'cat', 0.95, LEFT), (0, 'cat', 0.93, FAR), (0, 'cat', 0.25, RIGHT), (0, 'cat', 0.05, FAR)
    )

    calibration = analyse_detections(truth, found).calibration

    last = calibration.bins[-1]
    assert (last.highest, last.count, last.score, last.accuracy) == (1, 2, pytest.approx(0.94), 0.5)
    assert calibration.lowest == 0.1
    assert [one.count for one in calibration.bins] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert calibration.error == pytest.approx((2 * 0.44 + 0.75) / 3)


@pytest.mark.parametrize('ids', [[0], ['a'], [7]])
@pytest.mark.parametrize('kind', ['nothing', 'no objects', 'no predictions', 'no classes found'])
def test_little_data(ids: list[Any], kind: str) -> None:
    truth = truth_of([[] if kind in ('nothing', 'no objects') else [('cat', LEFT)]], ids=ids)
    found = predictions_of(truth, (ids[0], 'dog', 0.5, FAR)) if kind in ('no objects', 'no classes found') else []

    statistics = analyse_detections(truth, found)

    without_objects = kind in ('nothing', 'no objects')
    assert statistics.threshold is None
    assert statistics.table['AP'] == (None if without_objects else 0)
    assert all((one.AP is None) == (one.objects == 0) == (one.curve is None) for one in statistics.classes)
    assert statistics.confusion.counts.sum() == statistics.objects + statistics.predictions
    assert statistics.calibration.error == (0.5 if found else None)
    assert all((error.delta_ap is None) == without_objects for error in statistics.errors)
    assert len(statistics.false_positives) == len(found)
    assert [one.image_id for one in statistics.false_negatives] == ids * statistics.objects


def test_the_ids_do_not_matter_and_the_input_stays() -> None:
    rng = np.random.default_rng(0)
    truth = random_truth(rng, 4)
    found = random_predictions(rng, truth)
    renamed, found_renamed = copy.deepcopy(truth), copy.deepcopy(found)
    for image in renamed['images']:
        image['id'] = f'i{image["id"]}'
    for category in renamed['categories']:
        category['id'] = 'zyxwv'[category['id']]
    for one in (*renamed['annotations'], *found_renamed):
        one['image_id'] = f'i{one["image_id"]}'
        one['category_id'] = 'zyxwv'[one['category_id']]
    before = copy.deepcopy((truth, found))

    numbers, texts = analyse_detections(truth, found).to_dict(), analyse_detections(renamed, found_renamed).to_dict()

    assert (truth, found) == before
    assert [one.pop('category_id') for one in texts['classes']] == list('zyxwv')
    assert [one.pop('category_id') for one in numbers['classes']] == [0, 1, 2, 3, 4]
    assert [one['image_id'] for one in texts['false_positives']] == [
        f'i{one["image_id"]}' for one in numbers['false_positives']
    ]
    for content in (numbers, texts):
        del content['false_positives'], content['false_negatives']
    assert numbers == texts


def test_to_dict_is_json(scene: Any) -> None:
    content = scene.to_dict()

    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content['classes'][0]['curve']['score'][51] is None
    assert content['confusion']['counts'][0] == [1, 0, 1]
    assert content['breakdown']['size'][0]['name'] == 'small'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(image_id=9), 'a prediction has the image_id 9, which the annotation file does not list'),
        (dict(category_id='cat'), "a prediction has the category_id 'cat', which the annotation file does not list"),
        (dict(bbox=[0, 0, 1]), r'a prediction must have a bbox \[x, y, w, h\] of finite numbers, got \[0, 0, 1\]'),
        (dict(bbox=[0, 0, 1, float('nan')]), r'finite numbers, got \[0.0, 0.0, 1.0, nan\]'),
        (dict(score=1.5), 'scores of predictions must be between 0 and 1, got 1.5'),
        (dict(score=float('nan')), 'scores of predictions must be between 0 and 1, got nan'),
    ],
)
def test_wrong_predictions_raise_an_error(change: dict, message: str) -> None:
    truth = truth_of([[('cat', LEFT)]])
    [found] = predictions_of(truth, (0, 'cat', 0.5, LEFT))

    with pytest.raises(ValueError, match=message):
        analyse_detections(truth, [found | change])


def test_wrong_annotations_raise_an_error() -> None:
    truth = truth_of([[('cat', LEFT)]])

    with pytest.raises(ValueError, match='the ids of the annotation file must be distinct, but the image id 0 occurs'):
        analyse_detections(dict(truth, images=truth['images'] * 2), [])
    with pytest.raises(ValueError, match='an annotation has the image_id 3'):
        analyse_detections(dict(truth, annotations=[dict(truth['annotations'][0], image_id=3)]), [])
    with pytest.raises(
        ValueError, match=r'iou must be larger than 0\.1, the limit of the background, and at most 1, got 0'
    ):
        analyse_detections(truth, [], iou=0)
