"""Prediction of images of all kinds by untrained nano networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from sklearn.datasets import load_sample_image

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.prediction import Predictor, find_images, predict_images

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTOR = CONFIGS / 'dino' / 'defocus_mamba_nano_digits.py'
CLASSIFIER = CONFIGS / 'classification' / 'defocus_mamba_nano_digits.py'
NAMES = ('nil', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')


def save_untrained(config, path, **meta):
    torch.manual_seed(0)
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    torch.save(dict(meta=dict(dataset_meta=dict(classes=NAMES, **meta)), state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    return {
        'detection': save_untrained(DETECTOR, folder / 'detector.pth', category_ids=tuple(range(10, 20))),
        'classification': save_untrained(CLASSIFIER, folder / 'classifier.pth'),
    }


@pytest.fixture(scope='module')
def detect(weights):
    return Predictor(DETECTOR, weights['detection'], 'detection', 'cpu', strict=False)


@pytest.fixture(scope='module')
def classify(weights):
    return Predictor(CLASSIFIER, weights['classification'], 'classification', 'cpu', strict=False)


@pytest.fixture
def photos(tmp_path):
    """Three photographs, of which one is in a folder below."""
    pixels = load_sample_image('china.jpg')
    (tmp_path / 'below').mkdir()
    for name, part in (('b.png', pixels[:90, :120]), ('a.png', pixels[-64:, -96:]), ('below/c.png', pixels[:64, :64])):
        Image.fromarray(part).save(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def same(first, second):
    return np.array_equal(first.scores, second.scores) and np.array_equal(first.boxes, second.boxes)


def test_boxes_are_above_the_threshold_best_first_with_names_and_ids(detect, photos):
    (every,) = detect(photos / 'b.png', threshold=0)
    assert len(every) > 20
    threshold = float(every.scores[10])
    (result,) = detect(photos / 'b.png', threshold=threshold)
    assert len(result) == (every.scores >= threshold).sum() < len(every)
    assert (np.diff(result.scores) <= 0).all()
    assert np.array_equal(result.boxes, every.boxes[: len(result)])
    assert result.image_size == (120, 90)
    assert result.boxes.dtype == result.scores.dtype == np.float32
    assert (result.boxes >= 0).all()
    assert (result.boxes <= [120, 90, 120, 90]).all()
    assert result.names == tuple(NAMES[label] for label in result.labels)
    assert result.category_ids == tuple(10 + label for label in result.labels)
    assert result.path == str(photos / 'b.png')


def test_files_arrays_in_bgr_and_pillow_images_give_the_same(detect, photos):
    pillow = Image.open(photos / 'b.png')
    rgb = np.asarray(pillow)
    file, array, picture, wrong = detect([str(photos / 'b.png'), rgb[..., ::-1], pillow, rgb], threshold=0)
    assert same(file, array)
    assert same(file, picture)
    assert not same(file, wrong)  # RGB is taken for BGR
    assert np.array_equal(file.picture(), array.picture())
    assert array.path is None


def test_results_of_batches_come_in_the_order_of_the_images(detect, photos):
    Image.open(photos / 'b.png').crop((24, 8, 120, 72)).save(photos / 'd.png')  # as large as a.png
    images = [photos / 'd.png', photos / 'a.png', photos / 'below' / 'c.png']
    one_by_one = list(detect(images, threshold=0))
    together = list(detect(iter(images), threshold=0, batch_size=2))
    assert [result.path for result in together] == [str(path) for path in images]
    for first, second in zip(one_by_one, together, strict=True):
        assert np.allclose(first.scores, second.scores, atol=1e-4)


def test_folders_are_sorted_and_patterns_may_go_below(photos):
    names = [str(photos / name) for name in ('a.png', 'b.png', 'below/c.png')]
    assert find_images(photos) == names[:2]
    assert find_images(str(photos / '*')) == names[:2]
    assert find_images(f'{photos}/**/*.png') == names
    assert find_images([photos / 'b.png', photos]) == [names[1], *names[:2]]


def test_a_file_with_the_characters_of_a_pattern_is_a_file(photos):
    (photos / 'a.png').rename(photos / 'a[1].png')
    assert find_images(photos / 'a[1].png') == [str(photos / 'a[1].png')]


def test_images_that_do_not_exist_are_errors(detect, photos):
    (photos / 'empty').mkdir()
    with pytest.raises(UsageError, match='which matches none from the folder'):
        find_images(str(photos / '*.jpg'))
    with pytest.raises(UsageError, match='expected at least one image, got none'):
        find_images([])
    with pytest.raises(FileNotFoundError, match='expected images in folder'):
        find_images(photos / 'empty')
    with pytest.raises(FileNotFoundError, match=r'no\.png'):
        list(detect(photos / 'no.png'))
    with pytest.raises(TypeError, match='expected an image as uint8'):
        list(detect(np.zeros((8, 8, 3))))


def test_a_model_without_weights_says_what_to_do():
    with pytest.raises(UsageError) as error:
        predict_images(DETECTOR, None, 'image.png', 'detection')
    assert str(error.value) == (
        'defocus_mamba_nano_digits has no published weights, and without weights its predictions are random. Train it '
        'on your data (mmdefocus train defocus_mamba_nano_digits --data DATA), name a checkpoint of such a training '
        '(--weights FILE), or see what results look like (mmdefocus predict --example)'
    )


def test_a_missing_checkpoint_is_an_error():
    with pytest.raises(UsageError, match=r"checkpoint 'no\.pth' does not exist"):
        Predictor(DETECTOR, 'no.pth', 'detection')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(threshold=30), 'expected a threshold from 0 to 1, got 30'),
        (dict(threshold=float('nan')), 'expected a threshold from 0 to 1, got nan'),
        (dict(topk=0), 'expected topk of at least 1, got 0'),
        (dict(batch_size=0), 'expected a batch size of at least 1, got 0'),
    ],
)
def test_numbers_outside_their_range_are_errors_before_any_image_is_read(detect, arguments, message):
    with pytest.raises(UsageError, match=message):
        detect('no.png', **arguments)


def test_classes_are_the_best_in_descending_order(classify, photos):
    first, second = classify(photos, topk=3, batch_size=2)
    assert first.path == str(photos / 'a.png')
    for result in (first, second):
        assert len(result) == 3
        assert (np.diff(result.scores) <= 0).all()
        assert result.names == tuple(NAMES[label] for label in result.labels)
    (every,) = classify(photos / 'a.png', topk=99)
    assert every.scores.sum() == pytest.approx(1, abs=1e-5)
    assert np.array_equal(every.labels[:3], first.labels)


def test_the_config_of_the_caller_stays_as_it_was(weights, photos):
    cfg = Config.fromfile(DETECTOR)
    before = cfg.pretty_text
    (result,) = predict_images(
        cfg, weights['detection'], photos / 'a.png', 'detection', threshold=0, device='cpu', strict=False
    )
    assert cfg.pretty_text == before
    assert len(result) > 0
