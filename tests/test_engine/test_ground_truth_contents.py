"""Comparison of annotation files; test_ground_truth.py covers it through the runner."""

import copy
from collections.abc import Callable

import pytest

from mmdefocus.engine.ground_truth import _difference

TRUTH = {
    'images': [{'id': 1, 'width': 40, 'height': 30}, {'id': 2, 'width': 40, 'height': 30}],
    'categories': [{'id': 1, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
    'annotations': [
        {'id': 0, 'image_id': 1, 'category_id': 7, 'bbox': [1, 2, 3, 4], 'iscrowd': 0},
        {'id': 1, 'image_id': 2, 'category_id': 1, 'bbox': [5, 6, 7, 8], 'iscrowd': 1},
    ],
}


def compared(change: Callable[[dict], object]) -> str | None:
    content = copy.deepcopy(TRUTH)
    change(content)
    return _difference([content], TRUTH)


@pytest.mark.parametrize(
    'change',
    [
        lambda content: None,
        lambda content: content['annotations'].reverse(),
        lambda content: content['images'].reverse(),
        lambda content: content['annotations'][0].update(id=5),
        lambda content: content['annotations'][0].pop('iscrowd'),
    ],
)
def test_the_same_truth(change):
    assert compared(change) is None


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda content: content['categories'][0].update(name='cow'), 'their categories differ in names or ids'),
        (lambda content: content['categories'][0].update(id=3), 'their categories differ in names or ids'),
        (lambda content: content['images'].pop(), 'has 1 images and the evaluator 2, of which 1 are the same'),
        (lambda content: content['images'][0].update(id=9), 'has 2 images and the evaluator 2, of which 1 are the'),
        (
            lambda content: content['images'][0].update(width=41),
            '2 images and the evaluator 2, of which 1 are the same',
        ),
        (lambda content: content['images'][0].update(height=41), '2 images and the evaluator 2, of which 1 are the'),
        (lambda content: content.pop('annotations'), 'has 0 boxes and the evaluator 2, of which 0 are the same'),
        (
            lambda content: content['annotations'][0].update(bbox=[1, 2, 3, 5]),
            '2 boxes and the evaluator 2, of which 1',
        ),
        (lambda content: content['annotations'][0].update(image_id=2), '2 boxes and the evaluator 2, of which 1'),
        (lambda content: content['annotations'][0].update(category_id=1), '2 boxes and the evaluator 2, of which 1'),
        (lambda content: content['annotations'][0].update(iscrowd=1), '2 boxes and the evaluator 2, of which 1 are'),
        (lambda content: content['annotations'][1].pop('iscrowd'), '2 boxes and the evaluator 2, of which 1 are'),
    ],
)
def test_another_truth(change, message):
    assert message in compared(change)


def test_several_files_make_one_truth():
    parts = [copy.deepcopy(TRUTH) for _ in range(2)]
    for number, part in enumerate(parts):
        part['images'] = [TRUTH['images'][number]]
        part['annotations'] = [TRUTH['annotations'][number]]
    assert _difference(parts, TRUTH) is None
    assert _difference([parts[0], parts[0]], TRUTH) is not None
