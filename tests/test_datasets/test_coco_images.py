"""Images that are missing, damaged or skipped, and errors that name them."""

import copy

import numpy as np
import pytest
from coco_files import LOAD, build, write
from PIL import Image

from mmdefocus.datasets import DefocusLoadImage


@pytest.mark.parametrize('test_mode', [False, True])
def test_missing_images_are_found_before_any_is_loaded(tmp_path, content, test_mode):
    content['images'].append(dict(id=10, file_name='elsewhere/c.jpg', width=40, height=30))
    write(tmp_path, content)
    (tmp_path / 'images' / 'b.jpg').unlink()
    expected = (
        r"ann\.json' lists 3 images, of which 2 do not exist, the first is '.*b\.jpg' .*check data_root, data_prefix"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        build(tmp_path, test_mode=test_mode)


def test_missing_images_that_the_filter_removes_are_no_error(tmp_path, content):
    content['images'].append(dict(id=10, file_name='c.jpg', width=40, height=30))
    write(tmp_path, content)
    assert len(build(tmp_path, filter_cfg=dict(filter_empty_gt=True))) == 2


@pytest.mark.parametrize('test_mode', [False, True])
def test_images_that_a_transform_fails_at_are_named(tmp_path, content, test_mode):
    content['images'][1].update(width=1000, height=3)
    write(tmp_path, content)
    Image.new('RGB', (1000, 3)).save(tmp_path / 'images' / 'b.jpg')
    pipeline = [*LOAD, dict(type='mmdet.Resize', scale=(160, 160), keep_ratio=True)]
    dataset = build(tmp_path, pipeline=pipeline, test_mode=test_mode)
    assert dataset[0]['img'].shape == (120, 160, 3)
    expected = r"image file '.*b\.jpg' \(1000x3 pixels\): the pipeline failed in .* with error: OpenCV"
    with pytest.raises(ValueError, match=expected):
        dataset[1]


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize(
    ('spoil', 'error', 'message'),
    [
        (
            lambda path: path.unlink(),
            FileNotFoundError,
            'does not exist; check data_root, data_prefix and the file_name',
        ),
        (lambda path: path.write_bytes(b''), ValueError, r'cannot be decoded \(it is empty\)'),
        (
            lambda path: path.write_text('not an image'),
            ValueError,
            r"begins with b'not an image'\); expected a format .* repair it, or remove",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), ValueError, 'is truncated'),
        (
            lambda path: Image.new('RGB', (30, 40)).save(path),
            ValueError,
            r'has 30x40 pixels \(width x height\) but its annotation says 40x30',
        ),
    ],
)
def test_bad_images_are_named(tmp_path, content, spoil, error, message, test_mode):
    write(tmp_path, content)
    dataset = build(tmp_path, test_mode=test_mode)
    spoil(tmp_path / 'images' / 'b.jpg')
    assert dataset[0]['img'].shape == (30, 40, 3)
    with pytest.raises(error, match=f"b\\.jpg' .*{message}"):
        dataset[1]


def test_loaders_that_skip_images_are_errors(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='ignore_empty=True would skip unreadable images'):
        build(tmp_path, pipeline=[dict(type='LoadImageFromFile', ignore_empty=True)])


@pytest.mark.parametrize('kind', ['LoadImageFromFile', 'mmdet.LoadImageFromFile', 'mmcv.LoadImageFromFile'])
def test_every_spelling_of_the_loader_is_strict(tmp_path, content, kind):
    write(tmp_path, content)
    pipeline = [dict(type=kind, to_float32=True)]
    given = copy.deepcopy(pipeline)
    dataset = build(tmp_path, pipeline=pipeline)
    assert type(dataset.pipeline.transforms[0]) is DefocusLoadImage
    assert dataset[0]['img'].dtype == np.float32
    assert pipeline == given
