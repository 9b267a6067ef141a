"""Changed annotations: the data set raises DataError, or its boxes are valid and its images load."""

import copy
import json
import math

import numpy as np
import pytest
from fuzzing import FUZZ, SEEDS, mutate, mutations, watched
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mmdefocus.datasets import DataError, DefocusCocoDataset

CLASSES = ('cat', 'dog')
CONTENT = {
    'info': {'year': 2017},
    'images': [
        {'id': 7, 'file_name': 'a.jpg', 'width': 40, 'height': 30},
        {'id': 9, 'file_name': 'b.jpg', 'width': 40, 'height': 30, 'license': 1},
    ],
    'annotations': [
        {'id': 1, 'image_id': 7, 'category_id': 3, 'bbox': [1, 2, 10, 12], 'area': 120, 'iscrowd': 0},
        {'id': 2, 'image_id': 7, 'category_id': 5, 'bbox': [20, 5, 8.5, 9], 'area': 76.5, 'iscrowd': 0, 'ignore': 0},
        {'id': 3, 'image_id': 9, 'category_id': 5, 'bbox': [0, 0, 40, 30], 'area': 1200, 'iscrowd': 1},
        {'id': 4, 'image_id': 9, 'category_id': 3, 'bbox': [0, 0, 9, 9], 'area': 81, 'iscrowd': 0,
         'segmentation': [[0, 0, 9, 0, 9, 9]]},
    ],
    'categories': [{'id': 3, 'name': 'cat', 'supercategory': 'animal'}, {'id': 5, 'name': 'dog'}],
}  # fmt: skip
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True)]


@pytest.fixture(scope='module')
def load(tmp_path_factory):
    """Load a data set with such annotations, for training or testing; return its error, or None."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'images').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for name in ('a.jpg', 'b.jpg'):
        Image.fromarray(pixels).save(root / 'images' / name)

    def load(text, test_mode):
        (root / 'ann.json').write_bytes(text)
        error = None
        with watched():
            try:
                data = DefocusCocoDataset(
                    data_root=str(root),
                    ann_file='ann.json',
                    data_prefix=dict(img='images/'),
                    metainfo=dict(classes=CLASSES),
                    pipeline=PIPELINE,
                    test_mode=test_mode,
                    serialize_data=False,  # else MMEngine collects garbage for every data set
                )
                loaded = [data[index] for index in range(len(data))]
            except DataError as raised:
                error = str(raised)
        if error is None:
            check(loaded)
        else:
            assert any(name in error for name in ('ann.json', 'a.jpg', 'b.jpg'))
            assert len(error) < 3000
        return error

    return load


def check(loaded):
    assert loaded
    for image in loaded:
        height, width = image['img'].shape[:2]
        assert (image['height'], image['width']) == (height, width)
        for instance in image['instances']:
            x1, y1, x2, y2 = instance['bbox']
            assert all(math.isfinite(value) for value in instance['bbox'])
            assert x2 - x1 >= 1
            assert y2 - y1 >= 1
            assert min(x2, width) > max(x1, 0)
            assert min(y2, height) > max(y1, 0)
            assert instance['bbox_label'] in range(len(CLASSES))
            assert instance['ignore_flag'] in (0, 1)
        assert image['gt_bboxes'].tensor.shape == (len(image['instances']), 4)


def places(value, at=()):
    """Yield the paths to all values below ``value``."""
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*at, key)
        if isinstance(child, (dict, list)):
            yield from places(child, (*at, key))


PLACES = list(places(CONTENT))
NUMBERS = st.sampled_from((0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e-300, 1e308, math.inf, math.nan, True))
TEXTS = st.sampled_from(('', '7', 'cat', 'a.jpg', '../images/a.jpg', '/', '.', '\0', 'a\0.jpg', '\ud800', 'a' * 300))
LEAVES = st.none() | NUMBERS | TEXTS | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(('id', 'name', 'bbox')) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KINDS = st.sampled_from(('replace', 'replace', 'delete', 'repeat'))


def change(content, changes):
    content = copy.deepcopy(content)
    for kind, path, value in changes:
        parent = content
        for key in path[:-1]:
            if not isinstance(parent, (dict, list)) or (isinstance(parent, list) and key not in range(len(parent))):
                break
            if isinstance(parent, dict) and key not in parent:
                break
            parent = parent[key]
        else:
            _change(parent, path[-1], kind, value)
    return content


def _change(parent, key, kind, value):
    if isinstance(parent, list) and isinstance(key, int) and key < len(parent):
        parent[key : key + 1] = {'replace': [value], 'delete': [], 'repeat': [parent[key], parent[key]]}[kind]
    elif isinstance(parent, dict) and kind == 'delete':
        parent.pop(key, None)
    elif isinstance(parent, dict):
        parent[key] = value


def test_unchanged_annotations_are_loaded(load):
    for test_mode in (False, True):
        assert load(json.dumps(CONTENT).encode(), test_mode) is None


@pytest.mark.parametrize('path', sorted(SEEDS.glob('*.json')), ids=lambda path: path.stem)
@pytest.mark.parametrize('test_mode', [False, True])
def test_annotations_that_were_found(load, path, test_mode):
    assert load(path.read_bytes(), test_mode) is not None


@given(st.lists(st.tuples(KINDS, st.sampled_from(PLACES), VALUES), min_size=1, max_size=3), st.booleans())
@example([('replace', ('annotations', 0, 'bbox'), [0.125] * 2000)], False)
@example([('replace', ('annotations', 0), []), ('replace', ('annotations', 0, 'bbox', 0), None)], False)
@FUZZ
def test_changed_values(load, changes, test_mode):
    load(json.dumps(change(CONTENT, changes)).encode(), test_mode)


@given(mutations(), st.booleans())
@FUZZ
def test_changed_text(load, changes, test_mode):
    load(mutate(json.dumps(CONTENT).encode(), changes), test_mode)


@given(VALUES, st.booleans())
@FUZZ
def test_any_json(load, value, test_mode):
    load(json.dumps(value).encode(), test_mode)
