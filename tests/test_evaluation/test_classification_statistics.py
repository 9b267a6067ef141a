"""The numbers of the report of a classifier, on cases with known answers."""

import json

import numpy as np
import pytest

from mmdefocus.evaluation.statistics import analyse_classification

CLASSES = ('cat', 'dog', 'eel')
SCORES = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0]])
LABELS = np.array([0, 1, 1, 0])
PATHS = ('a.png', 'b.png', 'c.png', 'd.png')


def test_known_answers() -> None:
    statistics = analyse_classification(SCORES, LABELS, CLASSES, PATHS)

    assert (statistics.images, statistics.top1, statistics.top5) == (4, 0.5, None)
    assert statistics.labels == CLASSES
    assert statistics.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    cat, _, eel = statistics.classes
    assert (cat.name, cat.images, cat.predictions, cat.precision, cat.recall, cat.f1) == ('cat', 2, 2, 0.5, 0.5, 0.5)
    assert (eel.images, eel.predictions, eel.precision, eel.recall, eel.f1) == (0, 0, None, None, None)
    wrong = [(one.path, one.truth, one.prediction, one.score, one.truth_score) for one in statistics.worst_mistakes]
    assert wrong == [('d.png', 'cat', 'dog', 0.7, 0.3), ('c.png', 'dog', 'cat', 0.6, 0.4)]
    assert [(one.path, one.score) for one in statistics.least_confident_hits] == [('b.png', 0.8), ('a.png', 0.9)]
    # Bins of 0.6, 0.7, 0.8 and 0.9: two are wrong, two are right.
    assert statistics.calibration.error == pytest.approx((0.6 + 0.7 + 0.2 + 0.1) / 4)


def test_a_class_without_predictions_and_one_without_images() -> None:
    dog, eel = analyse_classification(np.eye(3)[[0, 2]], np.array([1, 0]), CLASSES, PATHS[:2]).classes[1:]

    assert (dog.precision, dog.recall, dog.f1) == (None, 0, 0)
    assert (eel.precision, eel.recall, eel.f1) == (0, None, None)


def test_against_literal_loops() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.dirichlet(np.ones(8), 200), rng.integers(0, 7, 200)
    classes = [f'class {number}' for number in range(8)]

    statistics = analyse_classification(scores, labels, classes, [str(number) for number in range(200)], number=1000)

    ranks = [sum(other > row[label] for other in row) for row, label in zip(scores, labels, strict=True)]
    assert statistics.top1 == np.mean([rank < 1 for rank in ranks])
    assert statistics.top5 == np.mean([rank < 5 for rank in ranks])
    found = scores.argmax(axis=1)
    for number, one in enumerate(statistics.classes):
        hits = sum((label == number) and (guess == number) for label, guess in zip(labels, found, strict=True))
        assert one.precision == pytest.approx(hits / sum(found == number))
        assert one.recall == (pytest.approx(hits / sum(labels == number)) if number < 7 else None)
    error = 0.0
    for low in np.arange(10) / 10:
        inside = [(row.max(), guess == label) for row, guess, label in zip(scores, found, labels, strict=True)
                  if low <= row.max() < low + 0.1]  # fmt: skip
        if inside:
            score, accuracy = np.mean(inside, axis=0)
            error += len(inside) / 200 * abs(score - accuracy)
    assert statistics.calibration.error == pytest.approx(error)
    assert len(statistics.worst_mistakes) + len(statistics.least_confident_hits) == 200


def test_no_images_raise_an_error() -> None:
    with pytest.raises(ValueError, match='the statistics of a classifier need at least one image, got none'):
        analyse_classification(np.zeros((0, 3)), np.zeros(0, dtype=int), CLASSES, ())


def test_to_dict_is_json() -> None:
    content = analyse_classification(SCORES, LABELS, CLASSES, PATHS).to_dict()

    assert json.loads(json.dumps(content, allow_nan=False)) == content


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(scores=SCORES[:3]), r'\(N, C\) = \(4, 3\), and as many paths, got scores of shape \(3, 3\) and 4 paths'),
        (dict(paths=PATHS[:3]), 'got scores of shape .* and 3 paths'),
        (dict(scores=SCORES * 2), 'must be probabilities between 0 and 1, got values from 0.0 to 1.8; apply softmax'),
        (dict(scores=SCORES * np.nan), 'must be probabilities between 0 and 1'),
        (dict(labels=LABELS + 2), 'labels must be whole numbers from 0 to 2'),
        (dict(labels=LABELS * 1.0), 'labels must be whole numbers from 0 to 2, got float64'),
    ],
)
def test_wrong_input_raises_an_error(change: dict, message: str) -> None:
    arguments = dict(scores=SCORES, labels=LABELS, classes=CLASSES, paths=PATHS) | change

    with pytest.raises(ValueError, match=message):
        analyse_classification(**arguments)
