"""The loader of images on files that are damaged in one way or another."""

import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmengine.fileio import LocalBackend, register_backend
from mmengine.fileio.backends.registry_utils import backends
from mmpretrain.registry import DATASETS
from PIL import Image

from mmdefocus.datasets import DefocusCocoDataset, DefocusLoadImage


def load(path: Path, **options):
    return DefocusLoadImage(**options)(dict(img_path=str(path)))['img']


@pytest.fixture
def photo(photos_coco) -> bytes:
    return (photos_coco / 'train2017' / 'china.jpg').read_bytes()


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """Return the messages that the loader logs."""
    said: list[str] = []
    monkeypatch.setattr('mmdefocus.datasets.loading.print_log', lambda message, **kwargs: said.append(message))
    return said


def garble(data: bytes, begin: float, length: int, zeros: bool = False) -> bytes:
    """Replace bytes somewhere in the pixels by random ones or by zeros, as a lost sector of a disk has."""
    position = int(begin * len(data))
    wrong = bytes(length) if zeros else np.random.default_rng(0).bytes(length)
    return data[:position] + wrong + data[position + length :]


class Relocated(LocalBackend):
    """A storage that knows every file by a name with the prefix ``bucket``."""

    def get(self, filepath):
        return super().get(filepath.removeprefix('bucket'))

    def exists(self, filepath):
        return super().exists(filepath.removeprefix('bucket'))

    def get_local_path(self, filepath):
        return super().get_local_path(filepath.removeprefix('bucket'))


@pytest.fixture
def storage():
    register_backend('relocated', Relocated, force=True)
    yield {'backend': 'relocated'}
    del backends['relocated']


def test_images_and_annotations_come_from_the_named_storage(storage, photos_coco):
    dataset = DefocusCocoDataset(
        data_root=f'bucket{photos_coco}',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        metainfo=dict(classes=CocoDataset.METAINFO['classes']),
        backend_args=storage,
        pipeline=[dict(type='LoadImageFromFile', backend_args=storage)],
    )
    assert dataset[0]['img'].shape == (427, 640, 3)


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_options_of_mmcv(tmp_path, photos_coco, suffix):
    Image.open(photos_coco / 'train2017' / 'china.jpg').save(tmp_path / f'image.{suffix}')
    for backend in ('cv2', 'pillow'):
        expected = {'img_path': str(tmp_path / f'image.{suffix}')}
        options = dict(color_type='grayscale', imdecode_backend=backend)
        actual = DefocusLoadImage(**options)(dict(expected))
        expected = LoadImageFromFile(**options)(expected)
        np.testing.assert_array_equal(actual.pop('img'), expected.pop('img'))
        assert actual == expected
        assert actual['img_shape'] == actual['ori_shape'] == (427, 640)


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('share', [0.01, 0.5, 0.99])
def test_truncated_images(tmp_path, photos_coco, suffix, share):
    path = tmp_path / f'a.{suffix}'
    with Image.open(photos_coco / 'train2017' / 'china.jpg') as photo:
        photo.save(path)
    loader = DefocusLoadImage()
    assert loader(dict(img_path=str(path)))['ori_shape'] == (427, 640)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=rf"a\.{suffix}' is truncated"):
        loader(dict(img_path=str(path)))


def test_bytes_after_the_end_of_an_image_do_no_harm(tmp_path, photos_coco):
    data = (photos_coco / 'train2017' / 'china.jpg').read_bytes()
    path = tmp_path / 'a.jpg'
    path.write_bytes(data + b'\xff\xda trailing bytes of a camera')
    assert DefocusLoadImage()(dict(img_path=str(path)))['img'].shape == (427, 640, 3)


@pytest.mark.parametrize('zeros', [False, True])
@pytest.mark.parametrize(('begin', 'progressive'), [(0.2, False), (0.5, False), (0.8, False), (0.2, True)])
def test_photographs_that_are_garbled_in_the_middle(tmp_path, photo, begin, zeros, progressive, capfd):
    """OpenCV fills in grey and wrong colours; libjpeg's line on stderr is all that says so."""
    path = tmp_path / 'a.jpg'
    path.write_bytes(photo)
    with Image.open(path) as image:
        image.save(path, progressive=progressive)
    path.write_bytes(garble(path.read_bytes(), begin, 1024, zeros))
    with pytest.raises(ValueError, match=r"a\.jpg' (is damaged \(Corrupt JPEG data: .*\), and part|cannot be decoded)"):
        load(path)
    assert 'Corrupt JPEG data' in capfd.readouterr().err, 'what was caught is passed on'


@pytest.mark.parametrize('test_mode', [False, True])
def test_garbled_images_of_a_folder_are_named(tmp_path, photo, test_mode):
    for name in ('ant', 'bee'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '0.jpg').write_bytes(photo if name == 'ant' else garble(photo, 0.5, 1024))
    pipeline = [dict(type='LoadImageFromFile')]
    dataset = DATASETS.build(
        dict(type='DefocusImageFolder', data_root=str(tmp_path), pipeline=pipeline, test_mode=test_mode)
    )
    assert dataset[0]['img'].shape == (427, 640, 3)
    with pytest.raises(ValueError, match=r"bee/0\.jpg' is damaged .*; restore it, or remove it and its annotations"):
        dataset[1]


def test_garbled_images_can_be_taken_as_they_are(tmp_path, photo, warnings):
    path = tmp_path / 'a.jpg'
    path.write_bytes(garble(photo, 0.5, 1024))
    assert load(path, allow_corrupt=True).shape == (427, 640, 3)
    assert warnings == [f"image file '{path}' is damaged (Corrupt JPEG data: premature end of data segment)"]


def test_few_bytes_too_many_are_a_warning(tmp_path, photo, warnings):
    path = tmp_path / 'a.jpg'
    assert photo.endswith(b'\xff\xd9')
    path.write_bytes(photo[:-2] + bytes(15) + photo[-2:])
    intact = tmp_path / 'b.jpg'
    intact.write_bytes(photo)
    assert np.array_equal(load(path), load(intact))
    (warning,) = warnings
    assert re.fullmatch(
        r"image file '.*a\.jpg' is damaged \(Corrupt JPEG data: \d+ extraneous bytes .* 0xd9\)", warning
    )


def test_stderr_is_in_its_place_after_loading_in_threads(tmp_path, photo, capfd):
    path = tmp_path / 'a.jpg'
    path.write_bytes(photo)
    images = []
    threads = [threading.Thread(target=lambda: images.append(load(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b'still here')
    assert len(images) == 4
    assert capfd.readouterr().err == 'still here'


def test_images_load_without_stderr(tmp_path, photo):
    path = tmp_path / 'a.jpg'
    path.write_bytes(photo)
    saved = os.dup(2)
    os.close(2)
    try:
        assert load(path).shape == (427, 640, 3)
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@pytest.mark.filterwarnings('ignore:"file_client_args":DeprecationWarning')
def test_deprecated_storage_options_are_refused():
    with pytest.raises(ValueError, match='file_client_args is deprecated; use backend_args'):
        DefocusLoadImage(file_client_args=dict(backend='disk'))
