"""Inference of all kinds of images, with a toy network in the published base config and the nano detector."""

import re
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image

from mmdefocus.apis.inference import ClassificationInferencer, DetectionInferencer, list_images, read_image

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'classification' / 'defocus_mamba_base.py'
DETECTOR = CONFIGS / 'dino' / 'defocus_mamba_nano_digits.py'
ARCH = dict(embed_dims=16, num_layers=2, inner_dims=32, state_dims=4, conv_kernel=4, dt_rank=2, group_size=16)


def toy(**head):
    """Return settings that make the base model small; merging them into a config consumes them."""
    return dict(backbone=dict(arch=dict(ARCH, _delete_=True)), head=dict(head, in_channels=16))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return mmpretrain.get_model(str(CONFIG), **toy())


@pytest.fixture(scope='module')
def inferencer(model):
    return ClassificationInferencer(model)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Checkpoint of the nano detector."""
    torch.manual_seed(0)
    cfg = Config.fromfile(DETECTOR)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    model.init_weights()
    path = tmp_path_factory.mktemp('weights') / 'detector.pth'
    torch.save(dict(meta=dict(dataset_meta=dict(classes=tuple('0123456789'))), state_dict=model.state_dict()), path)
    return str(path)


@pytest.fixture(scope='module')
def detector(weights):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DetectionInferencer(str(DETECTOR), weights, device='cpu', show_progress=False)


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
        (np.zeros((0, 4, 3), np.uint8), ValueError, r'got \(0, 4, 3\); it has no pixels'),
        (np.zeros(4, np.uint8), ValueError, r'got \(4,\); select the channels'),
        (np.zeros((1, 3, 4, 4), np.uint8), ValueError, r'got \(1, 3, 4, 4\); pass a batch as a list'),
        (
            np.zeros((3, 48, 64), np.uint8),
            ValueError,
            r'\(3, 48, 64\); pass array.transpose\(1, 2, 0\) if the channels',
        ),
        (
            torch.zeros(3, 4, 4),
            TypeError,
            r'got Tensor; for an RGB tensor \(3, height, width\) from 0 to 1, pass \(255 \*',
        ),
        (None, TypeError, 'expected a path or URL, a uint8 array .* or a Pillow image, got NoneType'),
        (Image.new('I;16', (4, 4)), TypeError, "with 8 bits per channel, such as mode 'RGB', got 'I;16'"),
        (Image.new('F', (4, 4)), TypeError, "got 'F'"),
    ],
)
def test_what_is_no_image(array, error, message, inferencer, detector):
    with pytest.raises(error, match=message):
        read_image(array)
    for predict in (inferencer, detector):
        with pytest.raises(error, match=message):
            predict([array])


def test_images_of_pillow(tmp_path, pixels):
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(read_image(image), pixels[..., ::-1])
    for mode in ('1', 'L', 'LA', 'P', 'RGBA', 'CMYK'):
        converted = image.convert(mode)
        np.testing.assert_array_equal(read_image(converted), np.asarray(converted.convert('RGB'))[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / 'turned.png', exif=exif)
    with Image.open(tmp_path / 'turned.png') as turned:
        np.testing.assert_array_equal(read_image(turned), read_image(tmp_path / 'turned.png'))
        assert read_image(turned).shape == (64, 48, 3)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'half.jpg')
    (tmp_path / 'half.jpg').write_bytes((tmp_path / 'half.jpg').read_bytes()[:-1000])
    with (
        Image.open(tmp_path / 'half.jpg') as half,
        pytest.raises(ValueError, match=r'Pillow image .*half\.jpg. cannot be'),
    ):
        read_image(half)


def test_tensors_are_read_as_the_message_says(pixels):
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    advice = re.escape('pass (255 * tensor).round().byte().permute(1, 2, 0).flip(-1).cpu().numpy()')
    with pytest.raises(TypeError, match=advice):
        read_image(tensor)
    image = (255 * tensor).round().byte().permute(1, 2, 0).flip(-1).cpu().numpy()
    np.testing.assert_array_equal(read_image(image), pixels[..., ::-1])


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
    with pytest.raises(
        FileNotFoundError, match=r"^image file 'none.png' does not exist \(current directory .*correct it$"
    ):
        inferencer('none.png')


def test_folders_hold_images_by_name(photo, tmp_path, inferencer):
    for name in ('B.JPG', 'a.bmp'):
        Image.open(photo).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'empty').mkdir()
    assert [Path(path).name for path in list_images(tmp_path)] == ['B.JPG', 'a.bmp', 'photo.png']
    assert list_images('https://host/photo.png') == ['https://host/photo.png']
    assert len(inferencer(str(tmp_path))) == len(inferencer(tmp_path)) == 3
    with pytest.raises(FileNotFoundError, match=r'expected images in folder .*empty. \(\.jpg, .*got none'):
        list_images(tmp_path / 'empty')


def test_all_ways_to_give_an_image_have_one_result(inferencer, photo, pixels):
    by_file = scores(inferencer(photo))
    assert by_file.shape == (1, 1000)
    np.testing.assert_allclose(by_file.sum(), 1, rtol=1e-5)
    bgr = pixels[..., ::-1]
    many = scores(inferencer([photo, Path(photo), bgr, Image.fromarray(pixels)], batch_size=2))
    np.testing.assert_allclose(many, np.repeat(by_file, 4, axis=0), rtol=1e-4)
    assert not np.allclose(scores(inferencer(pixels)), by_file, rtol=1e-4), 'the order of colours matters'


def test_images_of_one_pixel(inferencer):
    dot, plane = (scores(inferencer(np.full((side, side, 3), 200, np.uint8))) for side in (1, 256))
    np.testing.assert_allclose(dot, plane, rtol=1e-5)


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


def boxes(results):
    return np.stack([result['bboxes'] for result in results['predictions']])


def test_detector_takes_the_same_images(detector, photo, pixels, tmp_path):
    by_file = boxes(detector(photo))
    assert by_file.shape == (1, 40, 4)
    images = [
        photo,
        Path(photo),
        pixels[..., ::-1],
        Image.fromarray(pixels),
        np.dstack((pixels[..., ::-1], pixels[..., 0])),
    ]
    np.testing.assert_allclose(
        boxes(detector(images, batch_size=2)), np.repeat(by_file, 5, axis=0), rtol=1e-3, atol=1e-2
    )
    for name in ('b.png', 'a.png'):
        Image.open(photo).save(tmp_path / name)
    samples = detector(tmp_path, return_datasamples=True)['predictions']
    assert [Path(sample.img_path).name for sample in samples] == ['a.png', 'b.png', 'photo.png']


def test_inferencer_of_mmdet_agrees(detector, weights, photo):
    from mmdet.apis import DetInferencer

    stock = DetInferencer(str(DETECTOR), weights, device='cpu', show_progress=False)
    np.testing.assert_array_equal(boxes(detector(photo)), boxes(stock(photo)))


def test_detections_are_drawn_in_the_colours_of_the_image_and_saved(detector, pixels, tmp_path):
    arrays = [pixels[..., ::-1], pixels[..., 0]]
    result = detector(
        arrays, return_vis=True, draw_pred=False, no_save_pred=False, out_dir=str(tmp_path), pred_score_thr=2.0
    )
    grey = np.repeat(pixels[..., :1], 3, axis=-1)
    for picture, expected in zip(result['visualization'], (pixels, grey), strict=True):
        np.testing.assert_array_equal(picture, expected)
    assert len(list((tmp_path / 'preds').iterdir())) == 2


@pytest.mark.parametrize('batch_size', [0, -1, 1.5])
def test_batches_have_images(inferencer, detector, photo, batch_size):
    for predict in (inferencer, detector):
        with pytest.raises(ValueError, match=f'batch_size must be an integer from 1, got {batch_size}'):
            predict(photo, batch_size=batch_size)


def test_detector_needs_weights_that_fit(weights, tmp_path):
    content = torch.load(weights, weights_only=True)
    with pytest.raises(ValueError, match=r'no weights: name a checkpoint; with strict=False .* random values'):
        DetectionInferencer(str(DETECTOR), device='cpu')
    del content['state_dict']['neck.fpn_convs.0.conv.weight']
    torch.save(content, tmp_path / 'less.pth')
    fit = r'less.pth does not fit the model: 1 missing \(neck.fpn_convs.0.conv.weight\)\. Use the config'
    with pytest.raises(ValueError, match=fit):
        DetectionInferencer(str(DETECTOR), str(tmp_path / 'less.pth'), device='cpu')
    DetectionInferencer(str(DETECTOR), str(tmp_path / 'less.pth'), device='cpu', strict=False)


def test_classifier_needs_weights_that_fit(model, tmp_path):
    config = Config.fromfile(CONFIG)
    config.merge_from_dict(dict(model=toy()))
    with pytest.raises(ValueError, match='no weights: name a checkpoint'):
        ClassificationInferencer(config)
    state = model.state_dict()
    torch.save(state, tmp_path / 'all.pth')
    config.load_from = str(tmp_path / 'all.pth')
    for pretrained in (True, str(tmp_path / 'all.pth')):
        loaded = ClassificationInferencer(config, pretrained).model.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())
    state['head.fc.weight'] = state['head.fc.weight'][:21]
    torch.save(state, tmp_path / 'other.pth')
    message = (
        r'other.pth does not fit the model: 1 of a different shape \(head.fc.weight: .21, 16. in the file, .1000, 16. '
        'in'
    )
    for given in (config, model):
        with pytest.raises(ValueError, match=message):
            ClassificationInferencer(given, str(tmp_path / 'other.pth'))
    ClassificationInferencer(config, str(tmp_path / 'other.pth'), strict=False)
    ClassificationInferencer(config, False)


def test_classes_that_are_to_be_counted():
    config = str(CONFIGS / 'classification' / 'defocus_mamba_base_finetune.py')
    with pytest.raises(ValueError, match=r"num_classes='auto' is the number of classes .*head=dict\(num_classes=10\)"):
        mmpretrain.get_model(config)
    assert mmpretrain.get_model(config, **toy(num_classes=10)).head.fc.out_features == 10
