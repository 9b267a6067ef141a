"""Checks of values in COCO files, at their bounds; through the data set in test_coco.py."""

import copy
import json

import pytest

from mmdefocus.datasets import DataError
from mmdefocus.datasets.coco_checks import check_classes, read_coco
from mmdefocus.datasets.coco_values import check_box_format, check_boxes, check_images, is_degenerate

WIDTH, HEIGHT = 20, 10
CONTENT = {
    'images': [{'id': 1, 'file_name': 'a.jpg', 'width': WIDTH, 'height': HEIGHT}],
    'categories': [{'id': 1, 'name': 'cat'}],
    'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [2, 3, 5, 6], 'area': 30, 'iscrowd': 0}],
}


@pytest.mark.parametrize(
    'box', [[2, 3, 5, 6], [0, 0, 1, 1], [19.5, 3, 5, 6], [-5, 3, 5.5, 6], [2, 9.5, 5, 6], [2, -6, 5, 6.5]]
)
def test_boxes_that_are_trained_on(box):
    assert not is_degenerate({'bbox': box, 'area': 0.5}, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ('box', 'area'),
    [
        ([2, 3, 0.9, 6], 5),
        ([2, 3, 5, 0.9], 5),
        ([2, 3, 5, 6], 0),
        ([2, 3, 5, 6], -1),
        ([20, 3, 5, 6], 30),
        ([-5, 3, 5, 6], 30),
        ([2, 10, 5, 6], 30),
        ([2, -6, 5, 6], 30),
    ],
)
def test_boxes_that_mmdetection_drops(box, area):
    assert is_degenerate({'bbox': box, 'area': area}, WIDTH, HEIGHT)


def beyond(*boxes):
    annotations = [{'id': number, 'image_id': 1, 'bbox': box} for number, box in enumerate(boxes)]
    return check_box_format('FILE', CONTENT['images'], annotations)


INSIDE, CORNERS = [1, 1, 3, 3], [12, 6, 18, 9]  # the first could be corners as well


@pytest.mark.parametrize(
    ('box', 'counts'),
    [
        ([16, 2, 5, 3], 0),
        ([16, 2, 5.5, 3], 1),
        ([16, 2, 7, 3], 1),
        ([16, 6, 2, 5], 0),
        ([16, 6, 2, 5.5], 1),
        ([20, 2, 5, 3], 0),
        ([16, 10, 2, 5], 0),
        ([19.5, 2, 5, 3], 1),
        ([16, 9.5, 2, 5], 1),
    ],
)
def test_boxes_over_the_border_by_more_than_a_pixel_are_counted(box, counts):
    assert beyond(box, INSIDE, INSIDE) == counts


def test_most_over_the_border_and_nine_in_ten_are_corners():
    with pytest.raises(
        DataError, match=r'^FILE: 6 of 10 boxes reach beyond their image, .* \[12, 6, 6, 3\] instead of'
    ):
        beyond(*[CORNERS] * 6, *[INSIDE] * 4)
    with pytest.raises(DataError, match='6 of 10'):
        beyond(*[CORNERS] * 6, *[INSIDE] * 3, [5, 5, 2, 2])
    assert beyond(*[CORNERS] * 6, *[INSIDE] * 2, *[[5, 5, 2, 2]] * 2) == 6
    assert beyond(*[CORNERS] * 5, *[INSIDE] * 5) == 5
    assert beyond(*[CORNERS] * 4, *[INSIDE] * 6) == 4


@pytest.mark.parametrize(
    ('box', 'corners'),
    [
        ([12, 6, 21, 11], True),
        ([12, 6, 21.5, 11], False),
        ([12, 6, 21, 11.5], False),
        ([12, 6, 12, 9], False),
        ([12, 6, 18, 6], False),
        ([12, 6, 11, 9], False),
        ([12, 6, 18, 5], False),
    ],
)
def test_corners_lie_inside_in_order(box, corners):
    if corners:
        with pytest.raises(DataError, match='1 of 1 boxes'):
            beyond(box)
    else:
        assert beyond(box) == 1


@pytest.mark.parametrize(('value', 'allowed'), [(1, True), (2**20, True), (3.0, True), (0, False), (2**20 + 1, False)])
@pytest.mark.parametrize('key', ['width', 'height'])
def test_sizes_of_images(key, value, allowed):
    images = [CONTENT['images'][0] | {key: value}]
    if allowed:
        check_images('FILE', images)
    else:
        with pytest.raises(DataError, match=rf"^FILE: the {key} of image 1 \('a.jpg'\) must be a whole number"):
            check_images('FILE', images)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'bbox': [-(2**20), 0, 2**20, 5]}, None),
        ({'bbox': [0, 0, 2**20 + 1, 5]}, 'the bbox of annotation 1 must be in pixels'),
        ({'bbox': [0, 0, float('inf'), 5]}, 'four finite numbers'),
        ({'bbox': [float('-inf'), 0, 1, 5]}, 'four finite numbers'),
        ({'bbox': [0, 0, True, 5]}, 'four finite numbers'),
        ({'area': 1e10}, None),
        ({'area': 1.1e10}, 'the area of annotation 1 must be a finite number up to 1e'),
        ({'ignore': 1}, None),
        ({'ignore': 2}, 'ignore of annotation 1 must be 0 or 1'),
        ({'iscrowd': 1}, None),
        ({'iscrowd': '0'}, 'iscrowd of annotation 1 must be 0 or 1, without quotes'),
    ],
)
def test_values_of_annotations(change, message):
    annotations = [CONTENT['annotations'][0] | change]
    if message is None:
        check_boxes('FILE', annotations)
    else:
        with pytest.raises(DataError, match=f'^FILE: .*{message}'):
            check_boxes('FILE', annotations)


def spoil(path, value):
    """A file in which a value is replaced; ``None`` removes it."""
    content = copy.deepcopy(CONTENT)
    *way, last = path
    entry = content
    for key in way:
        entry = entry[key]
    if value is None:
        del entry[last]
    else:
        entry[last] = value
    return content


def twice(kind, **changes):
    content = copy.deepcopy(CONTENT)
    content[kind].append(content[kind][0] | changes)
    return content


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (
            spoil(['images', 0, 'width'], None),
            'FILE: image 0 has no width; each needs id, file_name, height, width; add it',
        ),
        (spoil(['categories', 0, 'name'], None), 'FILE: category 0 has no name; each needs id, name; add it'),
        (spoil(['annotations', 0, 'area'], None), 'iscrowd; area may be the width times the height of the box$'),
        (spoil(['annotations', 0, 'iscrowd'], None), 'iscrowd; iscrowd is 0 for a single object$'),
        (spoil(['annotations', 0, 'bbox'], None), 'FILE: annotation 0 has no bbox; each needs .*, iscrowd; add it'),
        (
            spoil(['annotations', 0], 7),
            'FILE: annotation 0 must be an object with id, .*, got 7; write or export it again',
        ),
        (spoil(['images'], []), 'annotation file FILE must list images, got an empty list'),
        (
            spoil(['categories', 0, 'id'], [1]),
            r'FILE: the id of category 0 must be a whole number or a string, got \[1',
        ),
        (spoil(['annotations', 0, 'image_id'], 1.5), 'FILE: the image_id of annotation 0 must be a whole number'),
        (spoil(['annotations', 0, 'category_id'], True), 'FILE: the category_id of annotation 0 must be a whole'),
        (spoil(['categories', 0, 'name'], 5), 'FILE: the name of category 1 must be a string, got 5'),
        (twice('images', file_name='b.jpg'), 'FILE: the image id 1 occurs more than once'),
        (twice('images', id=2), "FILE: images 1 and 2 are the same file 'a.jpg'"),
        (twice('categories', name='dog'), 'FILE: the category id 1 occurs more than once'),
        (twice('categories', id=2), "FILE: the category name 'cat' occurs more than once"),
        (twice('annotations'), 'FILE: the annotation id 1 occurs more than once'),
        (twice('categories', id='2', name='dog'), r"FILE: the id of some category entries is a string \('2'\)"),
        (spoil(['images', 0, 'width'], '3'), "FILE: the width of image 1 .*, got '3'"),
        (spoil(['annotations', 0, 'image_id'], 2), r'FILE: 1 annotations \(the first has id 1\) have an image_id'),
        (spoil(['annotations', 0, 'area'], '3'), "FILE: the area of annotation 1 .*, got '3'"),
    ],
)
def test_messages_name_the_file_and_the_entry(tmp_path, content, message):
    (tmp_path / 'file.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path / 'file.json', 'FILE', test_mode=True)


def test_a_file_for_testing_may_have_no_annotations(tmp_path):
    (tmp_path / 'file.json').write_text(json.dumps(spoil(['annotations'], None)))
    assert read_coco(tmp_path / 'file.json', 'FILE', test_mode=True)['annotations'] == []
    with pytest.raises(DataError, match='no list annotations, found images, categories'):
        read_coco(tmp_path / 'file.json', 'FILE', test_mode=False)


@pytest.mark.parametrize(
    ('in_file', 'in_config', 'ends'),
    [
        (['a'], ['b'], "Give the data set\n  metainfo=dict(classes=('a',))\nand the head num_classes=1."),
        (['a', 'b'], ['b'], 'allow_missing_categories=True to ignore the other categories.'),
    ],
)
def test_messages_of_classes_end_with_what_to_write(in_file, in_config, ends):
    with pytest.raises(DataError) as error:
        check_classes('FILE', in_file, in_config, allow_missing=False)
    assert str(error.value).startswith('FILE: the categories do not match')
    assert str(error.value).endswith(ends)


@pytest.mark.parametrize(
    ('classes', 'ends'),
    [
        ('cat', "got 'cat'; for a single class write classes=('cat',)"),
        ((1, 'cat'), "got (1, 'cat')"),
    ],
)
def test_classes_that_are_no_names(classes, ends):
    with pytest.raises(DataError) as error:
        check_classes('FILE', ['cat'], classes, allow_missing=False)
    assert str(error.value).endswith(ends)


def test_any_order_but_no_name_twice():
    check_classes('FILE', ['a', 'b'], ('b', 'a'), allow_missing=False)
    check_classes('FILE', ['a', 'b', 'c'], ('c', 'a'), allow_missing=True)
    with pytest.raises(DataError, match='classes must be distinct names, got more than once: b; list each class once'):
        check_classes('FILE', ['a', 'b'], ('b', 'a', 'b'), allow_missing=False)
