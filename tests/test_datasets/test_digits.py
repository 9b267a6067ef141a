import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mmdefocus.datasets import digits
from mmdefocus.datasets.digits import DigitsOptions, compose_image, make_digits_coco

SMALL = DigitsOptions(train_images=3, val_images=2, size=96, digits=(1, 3), digit_size=(20, 32))

# Every option with a value other than there.
OTHER = dict(
    train_images=4,
    val_images=3,
    size=100,
    digits=(1, 2),
    digit_size=(20, 30),
    max_iou=0.1,
    photos=False,
    seed=3,
)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def test_equal_options_give_equal_bytes(tmp_path):
    assert make_digits_coco(tmp_path / 'a', SMALL)
    assert make_digits_coco(tmp_path / 'b', SMALL)
    made = files(tmp_path / 'a')
    assert made == files(tmp_path / 'b')
    assert len(made) == 3 + 2 + 2
    make_digits_coco(tmp_path / 'c', replace(SMALL, seed=1))
    assert files(tmp_path / 'c') != made


@pytest.mark.parametrize(
    ('image', 'first', 'count', 'colour', 'steps'),
    [
        (('train', 0), (7, 47, 114, 22, 39), 1, (101.94, 16.48, 55.22), (4.29, 2.37)),
        (('train', 1), (0, 32, 59, 27, 53), 4, (132.93, 172.0, 83.07), (4.38, 5.55)),
        (('train', 2), (6, 88, 71, 32, 52), 3, (151.77, 106.14, 66.1), (10.17, 10.12)),
        (('train', 3), (5, 62, 3, 19, 27), 2, (115.71, 149.49, 148.92), (4.82, 4.87)),
        (('train', 4), (7, 55, 38, 23, 39), 4, (88.42, 84.93, 60.34), (8.05, 7.87)),
        (('train', 5), (1, 15, 29, 19, 45), 4, (49.55, 168.37, 202.79), (4.5, 3.3)),
        (('train', 6), (0, 72, 109, 31, 49), 2, (101.83, 74.28, 100.47), (5.38, 5.66)),
        (('train', 7), (4, 104, 99, 21, 37), 3, (129.85, 164.87, 71.24), (4.98, 4.31)),
        (('val', 0), (1, 64, 57, 27, 54), 2, (101.34, 138.46, 203.39), (4.24, 4.47)),
        (('val', 1), (4, 20, 102, 26, 47), 2, (89.27, 148.79, 179.54), (3.13, 3.34)),
    ],
)
def test_scenes_that_the_documented_figures_are_of(image, first, count, colour, steps):
    """The demo's set: a digit and its box, the mean colour, and the mean step between rows and between columns."""
    pixels, boxes = compose_image(DigitsOptions(), *image)
    assert (boxes[0]['digit'], *boxes[0]['bbox']) == first
    assert len(boxes) == count
    pixels = pixels.astype(float)
    assert pixels.mean((0, 1)) == pytest.approx(colour, abs=0.02)
    assert [np.abs(np.diff(pixels, axis=axis)).mean() for axis in (0, 1)] == pytest.approx(steps, abs=0.02)


@pytest.mark.parametrize('ground', [10.0, 89.0, 90.5, 128.0, 164.5, 166.0, 245.0])
def test_ink_stands_out_from_every_ground(ground):
    """Brighter or darker, where both are possible. Strong tints are clipped, and with them some of the 80."""
    rng = np.random.default_rng(0)
    lumas = np.array([np.array([0.299, 0.587, 0.114]) @ digits._ink_colour(rng, ground) for _ in range(200)])
    far = np.abs(lumas - ground)
    assert np.median(far) > 80
    assert far.min() > 55
    assert (lumas > ground).any() == (ground + 80 <= 245)
    assert (lumas < ground).any() == (ground - 80 >= 10)


def test_the_files_say_all_that_coco_has(tmp_path):
    make_digits_coco(tmp_path / 'set', SMALL)
    content = json.loads((tmp_path / 'set' / 'annotations' / 'instances_train.json').read_text())
    assert content['info']['description'] == "scikit-learn's handwritten digits on textured backgrounds"
    assert content['licenses'] == []
    assert content['categories'][3] == dict(id=4, name='3', supercategory='digit')
    _, boxes = compose_image(SMALL, 'train', 0)
    x, y, w, h = boxes[0]['bbox']
    assert content['annotations'][0] == dict(
        id=1, image_id=1, category_id=boxes[0]['digit'] + 1, bbox=[x, y, w, h], area=w * h, iscrowd=0
    )
    ids = [ann['id'] for ann in content['annotations']]
    assert ids == list(range(1, len(ids) + 1))


def test_progress_counts_every_image(tmp_path):
    calls = []
    make_digits_coco(tmp_path / 'set', SMALL, progress=lambda *call: calls.append(call))
    assert calls == [(done, 5) for done in range(1, 6)]


def test_an_empty_directory_is_used(tmp_path):
    assert make_digits_coco(tmp_path, SMALL)
    assert (tmp_path / 'val' / '000000.jpg').is_file()


def test_a_set_of_another_version_of_the_generator_is_not_reused(tmp_path, monkeypatch):
    make_digits_coco(tmp_path / 'set', SMALL)
    monkeypatch.setattr(digits, 'FORMAT_VERSION', digits.FORMAT_VERSION + 1)
    with pytest.raises(FileExistsError, match='format_version=1 instead of 2'):
        make_digits_coco(tmp_path / 'set', SMALL)


@pytest.mark.parametrize(
    ('a', 'b', 'iou'),
    [
        ((0, 0, 4, 2), (0, 0, 4, 2), 1.0),
        ((0, 0, 4, 2), (2, 1, 4, 2), 2 / 14),
        ((2, 1, 4, 2), (0, 0, 4, 2), 2 / 14),
        ((0, 0, 4, 2), (4, 0, 4, 2), 0.0),
        ((5, 0, 4, 2), (0, 0, 3, 2), 0.0),
        ((0, 7, 4, 2), (1, 0, 2, 9), 4 / 22),
    ],
)
def test_intersection_over_union(a, b, iou):
    assert digits._iou(a, b) == pytest.approx(iou)


def test_layout_is_coco(tmp_path):
    make_digits_coco(tmp_path / 'set', SMALL)
    for split, count in (('train', 3), ('val', 2)):
        content = json.loads((tmp_path / 'set' / 'annotations' / f'instances_{split}.json').read_text())
        assert [category['name'] for category in content['categories']] == [str(digit) for digit in range(10)]
        assert len(content['images']) == count
        assert content['info']['digits']['seed'] == 0
        for image in content['images']:
            with Image.open(tmp_path / 'set' / split / image['file_name']) as picture:
                assert picture.size == (image['width'], image['height']) == (96, 96)
            mine = [ann for ann in content['annotations'] if ann['image_id'] == image['id']]
            assert 1 <= len(mine) <= 3
            for ann in mine:
                x, y, w, h = ann['bbox']
                assert x >= 0
                assert y >= 0
                assert x + w <= 96
                assert y + h <= 96
                assert ann['area'] == w * h
                assert 6 <= w <= 32
                assert 12 <= h <= 32


def test_images_do_not_depend_on_how_many_are_made():
    few, many = replace(SMALL, train_images=1), replace(SMALL, train_images=1000, val_images=5)
    for split in ('train', 'val'):
        pixels, boxes = compose_image(few, split, 0)
        again, same_boxes = compose_image(many, split, 0)
        assert np.array_equal(pixels, again)
        assert boxes == same_boxes


@pytest.mark.parametrize('split', digits.SPLITS)
def test_every_image_has_random_numbers_of_its_own(monkeypatch, split):
    """With equal random numbers, training and validation images would differ only in their digits."""
    glyphs = digits._glyphs('val')
    monkeypatch.setattr(digits, '_glyphs', lambda split: glyphs)
    made = compose_image(SMALL, split, 0)
    (other_split,) = set(digits.SPLITS) - {split}
    for options, of_split, index in ((SMALL, other_split, 0), (SMALL, split, 1), (replace(SMALL, seed=1), split, 0)):
        pixels, boxes = compose_image(options, of_split, index)
        assert boxes != made[1]
        assert np.abs(pixels.astype(int) - made[0]).mean() > 5


def test_writers_of_train_and_val_are_disjoint():
    data = load_digits()
    train, val = digits._glyphs('train'), digits._glyphs('val')
    assert len(train[0]) + len(val[0]) == len(data.images) == 1797
    assert len(val[0]) == 400
    assert np.array_equal(val[0], data.images[-400:])


def test_boxes_are_tight_around_the_ink(monkeypatch):
    monkeypatch.setattr(digits, '_background', lambda rng, options: np.full((160, 160, 3), 128.0))
    for index in range(8):
        pixels, boxes = compose_image(DigitsOptions(), 'train', index)
        for x, y, w, h in (box['bbox'] for box in boxes):
            differs = np.abs(pixels.astype(int) - 128).max(-1) > 25
            inside = differs[y : y + h, x : x + w]
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()


def test_digits_hardly_overlap():
    options = DigitsOptions(digits=(4, 4))
    for index in range(10):
        boxes = [tuple(box['bbox']) for box in compose_image(options, 'val', index)[1]]
        assert len(boxes) == 4
        assert all(digits._iou(a, b) <= 0.02 for i, a in enumerate(boxes) for b in boxes[:i])


def test_an_identical_set_is_reused_and_another_replaced_by_force(tmp_path):
    out = tmp_path / 'set'
    assert make_digits_coco(out, SMALL)
    before = files(out)
    assert not make_digits_coco(out, SMALL)
    assert make_digits_coco(out, replace(SMALL, seed=3), force=True)
    assert files(out) != before
    assert [entry.name for entry in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize(('option', 'value'), OTHER.items())
def test_a_set_with_other_options_is_not_reused(tmp_path, option, value):
    out = tmp_path / 'set'
    make_digits_coco(out, SMALL)
    before = files(out)
    # A file has lists where the options have tuples.
    found, wanted = json.loads(json.dumps([getattr(SMALL, option), value]))
    message = re.escape(f'other options ({option}={found} instead of {wanted}); use --force')
    with pytest.raises(FileExistsError, match=message):
        make_digits_coco(out, replace(SMALL, **{option: value}))
    assert files(out) == before


def test_every_option_is_among_those_that_are_changed():
    assert OTHER.keys() == {field.name for field in fields(DigitsOptions)}


def test_lost_images_are_noticed(tmp_path):
    out = tmp_path / 'set'
    make_digits_coco(out, SMALL)
    (out / 'train' / '000001.jpg').unlink()
    with pytest.raises(FileExistsError, match='images missing from train/; use --force'):
        make_digits_coco(out, SMALL)
    assert make_digits_coco(out, SMALL, force=True)
    assert (out / 'train' / '000001.jpg').is_file()


@pytest.mark.parametrize('force', [False, True])
def test_foreign_directories_are_never_replaced(tmp_path, force):
    (tmp_path / 'thesis.txt').write_text('keep me')
    with pytest.raises(FileExistsError, match='is not a set made by this tool; choose another --out'):
        make_digits_coco(tmp_path, SMALL, force=force)
    assert (tmp_path / 'thesis.txt').read_text() == 'keep me'


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        assert total == 5
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_digits_coco(tmp_path / 'set', SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(train_images=0), 'train_images must be at least 1, got 0'),
        (dict(val_images=-1), 'val_images must be at least 1, got -1'),
        (dict(size=8), 'size must be between 32 and 427 pixels, got 8'),
        (dict(digits=(3, 2)), r'1 <= fewest <= most, got \(3, 2\)'),
        (dict(digits=(0, 2)), r'1 <= fewest <= most, got \(0, 2\)'),
        (dict(digit_size=(40, 30)), r'8 <= min <= max, got \(40, 30\)'),
        (dict(digit_size=(28, 200)), 'digits of 200 pixels do not fit into images of 160 pixels'),
        (dict(digits=(1, 30)), '30 digits of 28 pixels do not fit side by side into an image of 160'),
        (dict(max_iou=1.0), r'max_iou must be in \[0, 1\), got 1.0'),
        (dict(seed=-1), 'seed must not be negative, got -1'),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DigitsOptions(**options)


def test_too_crowded_images_say_so():
    options = DigitsOptions(digits=(16, 16), digit_size=(28, 160), max_iou=0.0)
    with pytest.raises(RuntimeError, match='found no place for 16 digits of 28-160 pixels in an image of 160 pixels'):
        compose_image(options, 'train', 0)
