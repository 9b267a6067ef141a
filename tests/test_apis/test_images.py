"""Images as arrays and of Pillow; files through the inferencers in test_inference.py."""

import numpy as np
import pytest
from PIL import Image

from mmdefocus.apis.detection_inferencer import _ReadImage
from mmdefocus.apis.images import check_batch_size, list_images, read_image

BGR = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize('shape', [(3, 4), (3, 4, 1)])
def test_grey_arrays(shape):
    image = read_image(BGR[..., :1].reshape(shape))
    assert image.shape == (3, 4, 3)
    assert all(np.array_equal(image[..., channel], BGR[..., 0]) for channel in range(3))


def test_alpha_is_left_out():
    alpha = np.full((3, 4, 1), 7, np.uint8)
    assert np.array_equal(read_image(np.concatenate([BGR, alpha], axis=-1)), BGR)


def test_bgr_stays():
    assert read_image(BGR) is BGR


def test_pillow_has_its_own_order_of_colours():
    image = read_image(Image.fromarray(BGR))
    assert np.array_equal(image, BGR[..., ::-1])
    assert image.flags.c_contiguous


@pytest.mark.parametrize(
    ('image', 'error', 'message'),
    [
        (BGR / 255, TypeError, 'expected an image as uint8 from 0 to 255, got float64'),
        (
            np.zeros((3, 6, 5), np.uint8),
            ValueError,
            r'got \(3, 6, 5\); pass array.transpose\(1, 2, 0\) if the channels',
        ),
        (np.zeros((5, 3, 2), np.uint8), ValueError, r'got \(5, 3, 2\); select the channels'),
        (np.zeros((0, 3, 3), np.uint8), ValueError, r'got \(0, 3, 3\); it has no pixels'),
        (np.zeros((1, 5, 3, 3), np.uint8), ValueError, r'got \(1, 5, 3, 3\); pass a batch as a list'),
        (np.zeros(5, np.uint8), ValueError, r'got \(5,\); select the channels'),
        (Image.new('I;16', (4, 3)), TypeError, "expected a Pillow image with 8 bits per channel, .* got 'I;16'"),
        (Image.new('F', (4, 3)), TypeError, "got 'F'"),
        ([1], TypeError, r'got list; for nested lists'),
    ],
)
def test_what_is_no_image(image, error, message):
    with pytest.raises(error, match=message):
        read_image(image)


def test_images_of_a_folder(tmp_path):
    for name in ('b.JPG', 'a.png', 'notes.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'deeper').mkdir()
    (tmp_path / 'deeper' / 'c.png').touch()
    assert list_images(tmp_path) == [str(tmp_path / 'a.png'), str(tmp_path / 'b.JPG')]
    assert list_images('http://example.org/a.png') == ['http://example.org/a.png']
    (tmp_path / 'deeper' / 'c.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'expected images in folder .*deeper. \(\.jpg.*got none'):
        list_images(tmp_path / 'deeper')


@pytest.mark.parametrize('size', [0, -1, 1.5, '2', None])
def test_batch_sizes(size):
    check_batch_size(1)
    with pytest.raises(ValueError, match='batch_size must be an integer from 1, got'):
        check_batch_size(size)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_what_the_steps_of_a_detector_are_given(tmp_path, dtype):
    Image.fromarray(BGR[..., ::-1]).save(tmp_path / 'image.png')
    read, path = _ReadImage(dtype), str(tmp_path / 'image.png')
    for item, kept in (
        (BGR, {}),
        (path, {'img_path': path}),
        ({'img_path': path}, {'img_path': path}),
        ({'img': BGR, 'text': 'cat'}, {'text': 'cat'}),
    ):
        results = read(item)
        image = results.pop('img')
        assert image.dtype == dtype
        assert np.array_equal(image, BGR)
        assert results == kept | {'img_shape': (3, 4), 'ori_shape': (3, 4)}
