"""Boxes: two corners, malformed, degenerate, or none to train on."""

import json
from typing import Any

import pytest
from coco_files import build, write

from mmdefocus.datasets import DefocusCocoDataset


def as_corners(content: dict[str, Any]) -> None:
    for ann in content['annotations']:
        x, y, w, h = ann['bbox']
        ann['bbox'] = [x, y, x + w, y + h]


@pytest.mark.parametrize('test_mode', [False, True])
def test_boxes_given_by_two_corners(tmp_path, content, test_mode):
    content['annotations'][0].update(bbox=[25, 10, 10, 12])
    as_corners(content)
    write(tmp_path, content)
    expected = (
        r'2 of 3 boxes reach beyond their image, but would lie inside if they were \[x1, y1, x2, y2\]\. .*write '
        r'\[x1, y1, x2 - x1, y2 - y1\] \(for annotation 1, \[25, 10, 10, 12\] instead of \[25, 10, 35, 22\]\)'
    )
    with pytest.raises(ValueError, match=expected):
        build(tmp_path, test_mode=test_mode)


def test_digits_given_by_two_corners(tmp_path, digits_coco):
    annotations = json.loads((digits_coco / 'annotations' / 'instances_train.json').read_text())
    as_corners(annotations)
    (tmp_path / 'corners.json').write_text(json.dumps(annotations))
    classes = [category['name'] for category in annotations['categories']]
    with pytest.raises(ValueError, match=r'would lie inside if they were \[x1, y1, x2, y2\]'):
        DefocusCocoDataset(
            ann_file=str(tmp_path / 'corners.json'),
            data_prefix=dict(img=str(digits_coco / 'train')),
            metainfo=dict(classes=classes),
        )


@pytest.mark.parametrize(
    ('boxes', 'beyond'),
    [
        ([[0, 0, 41, 31], [0, 0, 40.5, 30.9], [1, 1, 40, 30]], 0),  # rounded up
        ([[30, 20, 20, 20], [0, 0, 40, 30], [0, 0, 40, 30]], 1),  # one is not visible as a whole
        ([[30, 20, 20, 15], [35, 2, 15, 12], [20, 20, 25, 12]], 3),  # larger than the image when read as corners, too
    ],
)
def test_boxes_over_the_border_are_no_corners(tmp_path, content, boxes, beyond, monkeypatch):
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    for ann, box in zip(content['annotations'], boxes, strict=True):
        ann['bbox'] = box
    write(tmp_path, content)
    assert len(build(tmp_path)) == 2
    warning = f'{beyond} of 3 boxes reach beyond their image; do they belong to images of a different size?'
    assert said == [f"'{tmp_path}/ann.json': {warning}"] * (beyond > 0)


@pytest.mark.parametrize(
    'box', [[1, 2, 3], [1, 2, 3, float('nan')], [1, 2, 3, float('inf')], [1, 2, 3, '4'], 'box', None, [1, 2, 3, True]]
)
def test_malformed_boxes(tmp_path, content, box):
    content['annotations'][1]['bbox'] = box
    write(tmp_path, content)
    expected = r'bbox of annotation 2 must be \[x, y, width, height\] in pixels, four finite numbers, got'
    with pytest.raises(ValueError, match=expected):
        build(tmp_path)


def test_nan_area(tmp_path, content):
    content['annotations'][1]['area'] = float('nan')
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r'area of annotation 2 must be a finite number up to 1e\+10, got nan'):
        build(tmp_path)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (
            dict(bbox=[0.1, 0.2, 0.5, 0.5]),
            r'\(3 boxes, 3 of them degenerate, 1 crowds\); correct the boxes, .* in pixels',
        ),
        (dict(iscrowd=1), r'\(3 boxes, 0 of them degenerate, 3 crowds\); give the data set a file with boxes$'),
        (dict(ignore=1), r'\(3 boxes, 0 of them degenerate, 1 crowds\); give the data set a file with boxes$'),
        (None, r'\(0 boxes, 0 of them degenerate, 0 crowds\); give the data set a file with boxes$'),
    ],
)
def test_nothing_to_train_on(tmp_path, content, change, expected, monkeypatch):
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    content['annotations'] = [ann | change for ann in content['annotations']] if change else []
    write(tmp_path, content)
    with pytest.raises(ValueError, match='no usable box to train on ' + expected):
        build(tmp_path)
    said.clear()
    assert len(build(tmp_path, test_mode=True)) == 2
    assert 'every AP will be -1' in said[-1]


def test_image_lists_without_annotations_can_be_tested_only(tmp_path, content):
    del content['annotations']
    write(tmp_path, content)
    assert len(build(tmp_path, test_mode=True)) == 2
    with pytest.raises(ValueError, match='no list annotations'):
        build(tmp_path)


@pytest.mark.parametrize(
    ('box', 'area'),
    [
        ([5, 5, 0, 9], 9),
        ([5, 5, 9, -1], 9),
        ([5, 5, 0.5, 9], 4.5),
        ([5, 5, 9, 0.5], 4.5),
        ([50, 5, 9, 9], 81),
        ([-20, 5, 9, 9], 81),
        ([5, 40, 9, 9], 81),
        ([5, -20, 9, 9], 81),
        ([5, 5, 9, 9], 0),
        ([5, 5, 9, 9], -81),
    ],
)
def test_degenerate_boxes_are_dropped_and_counted(tmp_path, content, box, area, monkeypatch):
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    content['annotations'][0].update(bbox=box, area=area)
    write(tmp_path, content)
    dataset = build(tmp_path)
    assert [len(dataset.get_data_info(i)['instances']) for i in range(2)] == [1, 1]
    assert len(said) == 1
    assert '1 of 3 boxes are smaller than a pixel, have no area or lie outside' in said[0]
    assert 'the first is annotation 1' in said[0]
