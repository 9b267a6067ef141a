"""Masks of COCO files: what is refused, what is dropped, and that they are asked for only where they are loaded."""

import json

import pytest
from coco_files import build, write

from mmdefocus.datasets import DataError, coco

LOAD = dict(type='LoadImageFromFile')
MASKS = dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)
SQUARE = [1, 2, 11, 2, 11, 14, 1, 14]
SIZE = [30, 40]
RUNS = dict(size=SIZE, counts=[31, 10, 30 * 40 - 41])


@pytest.fixture
def with_masks(content):
    for ann in content['annotations']:
        ann['segmentation'] = RUNS if ann['iscrowd'] else [SQUARE]
    return content


def instances(root, **kwargs):
    dataset = build(root, **dict(pipeline=[LOAD, MASKS]) | kwargs)
    return [instance for index in range(len(dataset)) for instance in dataset.get_data_info(index)['instances']]


def test_polygons_and_run_lengths_are_loaded(tmp_path, with_masks):
    write(tmp_path, with_masks)
    dataset = build(tmp_path, pipeline=[LOAD, MASKS])
    masks = [dataset[index]['gt_masks'] for index in range(2)]
    assert [len(mask) for mask in masks] == [2, 1]
    assert masks[0].masks[0].sum() == 10 * 12
    assert masks[1].masks[0].sum() == 10


@pytest.mark.parametrize('value', ['missing', [], None])
def test_boxes_without_masks(value, tmp_path, with_masks):
    ann = with_masks['annotations'][1]
    ann['segmentation'] = value
    if value == 'missing':
        del ann['segmentation']
    write(tmp_path, with_masks)
    with pytest.raises(
        DataError,
        match=r"ann.json': 1 of 3 boxes have no segmentation \(the first is annotation 2\), and the pipeline loads "
        r'masks .* expected polygons .*: export the annotations with masks, or train a detector without masks$',
    ):
        instances(tmp_path)
    assert len(instances(tmp_path, pipeline=[LOAD, dict(MASKS, with_mask=False)])) == 3


def test_masks_are_needed_wherever_the_pipeline_loads_them(tmp_path, content):
    write(tmp_path, content)
    choice = dict(type='RandomChoice', transforms=[[dict(type='mmdet.RandomFlip', prob=0.5)], [MASKS]])
    for step in (choice, dict(type='RandomApply', transforms=[MASKS])):
        with pytest.raises(DataError, match='3 of 3 boxes have no segmentation'):
            instances(tmp_path, pipeline=[LOAD, step])
    choice['transforms'] = choice['transforms'][:1]
    assert len(instances(tmp_path, pipeline=[LOAD, choice])) == 3


def test_masks_of_boxes_that_are_dropped_are_not_needed(tmp_path, with_masks):
    first, second, _ = with_masks['annotations']
    del first['segmentation'], second['segmentation']
    first['bbox'] = [1, 2, 0.5, 12]  # all others are dogs
    second['ignore'] = 1
    with_masks['annotations'].append(dict(second, id=4, ignore=0, segmentation=[SQUARE]))
    write(tmp_path, with_masks)
    assert len(instances(tmp_path)) == 2
    second.update(ignore=0)
    write(tmp_path, with_masks)
    with pytest.raises(DataError, match=r'1 of 3 boxes have no segmentation \(the first is annotation 2\)'):
        instances(tmp_path)
    assert instances(tmp_path, classes=('cat',), allow_missing_categories=True, test_mode=True) == []


@pytest.mark.parametrize(
    'mask',
    [
        'polygon',
        [1, 2, 11, 2, 11, 14],
        [['1', '2', '11', '2', '11', '14']],
        [[1, 2, float('nan'), 2, 11, 14]],
        [SQUARE, {'x': 1}],
        dict(size=SIZE),
        dict(size=[40, 30], counts=RUNS['counts']),
        dict(size=SIZE, counts=[31, 10, 5]),
        dict(size=SIZE, counts=[31, -10, 30 * 40 - 21]),
        dict(size=SIZE, counts=''),
        dict(counts=RUNS['counts']),
    ],
)
def test_malformed_masks(mask, tmp_path, with_masks):
    with_masks['annotations'][0]['segmentation'] = mask
    write(tmp_path, json.dumps(with_masks))
    with pytest.raises(
        DataError,
        match=r'the segmentation of annotation 1 must be polygons .* \(of its image: \[30, 40\]\), got .*; correct',
    ):
        instances(tmp_path)


def test_compressed_run_lengths(tmp_path, with_masks):
    from pycocotools import mask

    compressed = mask.frPyObjects(RUNS, *SIZE)
    with_masks['annotations'][2]['segmentation'] = dict(size=SIZE, counts=compressed['counts'].decode())
    write(tmp_path, with_masks)
    assert build(tmp_path, pipeline=[LOAD, MASKS])[1]['gt_masks'].masks.sum() == 10


def test_polygons_without_area_are_counted(tmp_path, with_masks, monkeypatch):
    with_masks['annotations'][0]['segmentation'] = [[1, 2, 11, 2], [1, 2, 3, 4, 5, 6, 7]]
    with_masks['annotations'][1]['segmentation'] = [[1, 2], SQUARE]
    write(tmp_path, with_masks)
    said = []
    monkeypatch.setattr(coco, '_warn', said.append)
    dataset = build(tmp_path, pipeline=[LOAD, MASKS])
    assert dataset[0]['gt_ignore_flags'].tolist() == [True, False]
    assert said == [
        f"'{tmp_path}/ann.json': 1 of 3 boxes are ignored in training: none of the polygons of their masks has three "
        'points (the first is annotation 1)'
    ]
