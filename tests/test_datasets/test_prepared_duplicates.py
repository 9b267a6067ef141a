"""Equal pictures are found whatever their size and file format; similar ones are not reported."""

import json
import os
import shutil

import numpy as np
import pytest
import source_sets as sets
from PIL import Image
from sklearn.datasets import load_sample_image

from mmdefocus.datasets.prepared import find_duplicates, read_data


@pytest.fixture
def root(tmp_path):
    """A set whose training pictures also have a photograph, photo.png."""
    root = sets.make_coco(tmp_path)
    Image.fromarray(load_sample_image('china.jpg')).save(root / 'train' / 'photo.png')
    add(root, 'train', 'photo.png')
    return root


def add(root, split, name):
    file = root / 'annotations' / f'instances_{split}.json'
    content = json.loads(file.read_text())
    content['images'].append(dict(id=100 + len(content['images']), file_name=name, width=1, height=1))
    file.write_text(json.dumps(content))


def found(root):
    return [(one.first.name, one.second.name, one.splits, one.exact) for one in find_duplicates(read_data(root))]


@pytest.mark.parametrize(
    ('name', 'write', 'exact'),
    [
        ('copy.png', lambda photo, path: photo.save(path), True),
        ('lossless.bmp', lambda photo, path: photo.save(path), True),
        ('jpeg.jpg', lambda photo, path: photo.save(path, quality=40), False),
        ('small.jpg', lambda photo, path: photo.resize((320, 213)).save(path, quality=80), False),
        ('large.png', lambda photo, path: photo.resize((1280, 854)).save(path), False),
    ],
)
def test_copies_are_found(root, name, write, exact):
    write(Image.open(root / 'train' / 'photo.png'), root / 'val' / name)
    add(root, 'val', name)
    assert found(root) == [('photo.png', name, ('train', 'val'), exact)]


def moved(pixels):
    pixels[100:140, 300:340] = 255 - pixels[100:140, 300:340]
    return pixels


@pytest.mark.parametrize(
    'other',
    [moved, lambda pixels: pixels[:, ::-1], lambda pixels: pixels[20:], lambda pixels: np.roll(pixels, 12, 1)],
    ids=['something moved', 'mirrored', 'cropped', 'shifted'],
)
def test_similar_pictures_are_no_duplicates(root, other):
    Image.fromarray(other(load_sample_image('china.jpg').copy())).save(root / 'val' / 'other.png')
    add(root, 'val', 'other.png')
    assert found(root) == []


def test_copies_within_a_split_are_found_once_each(root):
    for name in ('a.png', 'b.png'):
        shutil.copy(root / 'train' / 'train_00.png', root / 'train' / name)
        add(root, 'train', name)
    assert found(root) == [
        ('a.png', 'b.png', ('train', 'train'), True),
        ('a.png', 'train_00.png', ('train', 'train'), True),
    ]


def test_damaged_images_are_left_out_and_no_file_stays_open(root):
    (root / 'val' / 'val_00.png').write_bytes(b'damaged')
    (root / 'val' / 'val_01.png').unlink()
    before, calls = os.listdir('/proc/self/fd'), []
    assert find_duplicates(read_data(root), lambda done, total: calls.append((done, total))) == []
    assert calls == [(done, 10) for done in range(1, 11)]
    assert len(os.listdir('/proc/self/fd')) == len(before)
