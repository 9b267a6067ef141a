"""Inference of all kinds of images, with a toy network in the published base config."""

from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image

from mmdefocus.apis.inference import ClassificationInferencer, list_images, read_image

CONFIG = Path(__file__).parents[2] / 'configs' / 'classification' / 'defocus_mamba_base.py'
ARCH = dict(embed_dims=16, num_layers=2, inner_dims=32, state_dims=4, conv_kernel=4, dt_rank=2, group_size=16)
TOY = dict(backbone=dict(arch=dict(ARCH, _delete_=True)), head=dict(in_channels=16))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return mmpretrain.get_model(str(CONFIG), **TOY)


@pytest.fixture(scope='module')
def inferencer(model):
    return ClassificationInferencer(model)


@pytest.fixture
def pixels():
    """(48, 64, 3), RGB, with all corners different."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack((4 * rows, 3 * columns, 255 - 2 * rows - columns), axis=-1).astype(np.uint8)


@pytest.fixture
def photo(tmp_path, pixels):
    path = tmp_path / 'photo.png'
    Image.fromarray(pixels).save(path)
    return str(path)


def scores(results):
    return np.stack([result['pred_scores'] for result in results])


def save(image, path, **options):
    image.save(path, **options)
    return read_image(path)


def test_files_of_all_kinds_become_three_bytes_per_pixel(tmp_path, pixels):
    image, expected = Image.fromarray(pixels), pixels[..., ::-1]
    np.testing.assert_array_equal(save(image, tmp_path / 'rgb.png'), expected)

    grey = image.convert('L')
    np.testing.assert_array_equal(save(grey, tmp_path / 'grey.png'), np.repeat(np.asarray(grey)[..., None], 3, -1))

    transparent = image.copy()
    transparent.putalpha(100)
    np.testing.assert_array_equal(save(transparent, tmp_path / 'rgba.png'), expected)

    palette = image.quantize(16)
    expected_colours = np.asarray(palette.convert('RGB'))[..., ::-1]
    np.testing.assert_array_equal(save(palette, tmp_path / 'palette.png'), expected_colours)

    deep = pixels.astype(np.uint16) * 256 + 200
    cv2.imwrite(str(tmp_path / 'deep.png'), deep[..., ::-1])
    assert cv2.imread(str(tmp_path / 'deep.png'), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / 'deep.png'), expected)

    np.testing.assert_array_equal(save(image.crop((0, 0, 1, 1)), tmp_path / 'dot.png'), expected[:1, :1])


def test_orientation_of_a_camera_is_honoured(tmp_path, pixels):
    image = Image.fromarray(pixels)
    upright = save(image, tmp_path / 'upright.jpg')
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned = save(image, tmp_path / 'turned.jpg', exif=exif)
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def test_arrays(pixels):
    bgr = pixels[..., ::-1]
    np.testing.assert_array_equal(read_image(bgr), bgr)
    grey = pixels[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(read_image(array), np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(read_image(np.dstack((bgr, grey))), bgr)


@pytest.mark.parametrize(
    ('array', 'error', 'message'),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, 'expected an image as uint8 from 0 to 255, got float32'),
        (np.zeros((4, 4, 3), np.uint16), TypeError, 'uint8 from 0 to 255, got uint16'),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r'1, 3 \(BGR\) or 4 \(BGRA\) channels, got \(4, 4, 2\)'),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r'got \(0, 4, 3\)'),
        (np.zeros(4, np.uint8), ValueError, r'got \(4,\)'),
    ],
)
def test_arrays_that_are_no_images(array, error, message):
    with pytest.raises(error, match=message):
        read_image(array)


@pytest.mark.parametrize(
    ('content', 'message'), [(b'', 'it is empty'), (b'words', "begins with b'words'"), ('half', 'is truncated')]
)
def test_broken_files_are_named(inferencer, photo, tmp_path, content, message):
    if content == 'half':
        cv2.imwrite(str(tmp_path / 'whole.jpg'), np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
        content = (tmp_path / 'whole.jpg').read_bytes()[:-2000]
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=f'broken.jpg.*{message}'):
        inferencer([photo, str(broken)])


def test_missing_files_are_named(inferencer):
    with pytest.raises(FileNotFoundError, match=r"^image file 'none.png' does not exist$"):
        inferencer('none.png')


def test_folders_hold_images_by_name(photo, tmp_path, inferencer):
    for name in ('B.JPG', 'a.bmp'):
        Image.open(photo).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'empty').mkdir()
    assert [Path(path).name for path in list_images(tmp_path)] == ['B.JPG', 'a.bmp', 'photo.png']
    assert list_images('https://host/photo.png') == ['https://host/photo.png']
    assert len(inferencer(str(tmp_path))) == len(inferencer(tmp_path)) == 3
    with pytest.raises(FileNotFoundError, match=r'empty. has no images \(.jpg, '):
        list_images(tmp_path / 'empty')


def test_all_ways_to_give_an_image_have_one_result(inferencer, photo, pixels):
    by_file = scores(inferencer(photo))
    assert by_file.shape == (1, 1000)
    np.testing.assert_allclose(by_file.sum(), 1, rtol=1e-5)
    bgr = pixels[..., ::-1]
    many = scores(inferencer([photo, Path(photo), bgr], batch_size=2))
    np.testing.assert_allclose(many, np.repeat(by_file, 3, axis=0), rtol=1e-4)
    assert not np.allclose(scores(inferencer(pixels)), by_file, rtol=1e-4), 'the order of colours matters'


def test_images_of_one_pixel(inferencer):
    assert np.isfinite(scores(inferencer(np.full((1, 1, 3), 200, np.uint8)))).all()


def test_inferencer_of_mmpretrain_agrees(inferencer, model, photo, tmp_path):
    grey = tmp_path / 'grey.png'
    Image.open(photo).convert('L').save(grey)
    images = [photo, str(grey)]
    stock = mmpretrain.ImageClassificationInferencer(model)
    np.testing.assert_array_equal(scores(stock(images)), scores(inferencer(images)))
    assert stock(photo)[0]['pred_class'] == inferencer(photo)[0]['pred_class']


def test_scope_of_another_package_is_no_obstacle(model, photo):
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert len(ClassificationInferencer(model)(photo)) == 1


def test_picture_names_the_best_classes(inferencer, photo, pixels, tmp_path, monkeypatch):
    shown = []
    draw = UniversalVisualizer.visualize_cls

    def spy(self, image, data_sample, **options):
        shown.append((image, data_sample.pred_label.tolist()))
        return draw(self, image, data_sample, **options)

    monkeypatch.setattr(UniversalVisualizer, 'visualize_cls', spy)
    (result, _) = inferencer([photo, pixels[..., ::-1]], show_dir=str(tmp_path / 'out'))
    expected = np.argsort(-result['pred_scores'])[:5].tolist()
    assert [labels for _, labels in shown] == [expected, expected]
    for image, _ in shown:
        np.testing.assert_array_equal(image, pixels)
    for name in ('photo.png', '1.png'):
        picture = np.asarray(Image.open(tmp_path / 'out' / name))
        assert picture.shape == (48, 64, 3)
        assert (picture != pixels).any(), 'text is drawn'


def test_best_classes_of_a_small_model(model):
    inferencer = ClassificationInferencer(model, topk=3)
    best = inferencer.best(DataSample().set_pred_score(torch.tensor([0.2, 0.7, 0.1])))
    assert best.pred_label.tolist() == [1, 0, 2]
    best = inferencer.best(DataSample().set_pred_score(torch.tensor([0.3, 0.7])))
    assert best.pred_label.tolist() == [1, 0]
    with pytest.raises(ValueError, match='topk must be positive, got 0'):
        ClassificationInferencer(model, topk=0)
