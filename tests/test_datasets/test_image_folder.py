from pathlib import Path

import numpy as np
import pytest
from mmpretrain.registry import DATASETS
from PIL import Image

import mmdefocus.datasets  # noqa: F401 (registers the data set)
from mmdefocus.datasets.loading import DefocusLoadImage

LOAD = [dict(type='LoadImageFromFile')]


def write_image(path: Path, colour: int = 100, size: tuple[int, int] = (12, 8), mode: str = 'RGB', **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (colour, 2 * colour, 10)).convert(mode).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    """Two training and two validation images of each of two classes."""
    for split in ('train', 'val'):
        for name in ('ant', 'bee'):
            for number in range(2):
                write_image(tmp_path / split / name / f'{number}.png')
    return tmp_path


def build(root: Path, prefix: str = 'train', **options):
    return DATASETS.build(
        dict(type='DefocusImageFolder', data_root=str(root), data_prefix=prefix, **{'pipeline': LOAD, **options})
    )


def labels(dataset) -> dict[str, int]:
    entries = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {str(Path(entry['img_path']).relative_to(dataset.img_prefix)): entry['gt_label'] for entry in entries}


def test_folders_are_classes_in_the_order_of_their_names(root):
    write_image(root / 'train' / '10' / 'deeper' / 'x.JPG')
    dataset = build(root)
    assert dataset.metainfo['classes'] == ('10', 'ant', 'bee')
    assert labels(dataset) == {'10/deeper/x.JPG': 0, 'ant/0.png': 1, 'ant/1.png': 1, 'bee/0.png': 2, 'bee/1.png': 2}


def test_given_classes_decide_the_labels(root):
    dataset = build(root, 'val', classes=['bee', 'ant'])
    assert dataset.metainfo['classes'] == ('bee', 'ant')
    assert labels(dataset) == {'ant/0.png': 1, 'ant/1.png': 1, 'bee/0.png': 0, 'bee/1.png': 0}


def test_hidden_files_and_folders_are_ignored(root):
    write_image(root / 'train' / '.cache' / 'x.png')
    write_image(root / 'train' / 'ant' / '.thumbnails' / 'x.png')
    write_image(root / 'train' / 'ant' / '._0.png')
    (root / 'train' / 'notes.txt').write_text('not a class')
    dataset = build(root)
    assert dataset.metainfo['classes'] == ('ant', 'bee')
    assert len(dataset) == 4


@pytest.mark.parametrize(
    ('name', 'mode', 'options'),
    [
        ('x.webp', 'RGB', dict(lossless=True)),
        ('x.tiff', 'RGB', {}),
        ('grey.png', 'L', {}),
        ('alpha.png', 'RGBA', {}),
        ('palette.png', 'P', {}),
        ('cmyk.jpg', 'CMYK', {}),
    ],
)
def test_kinds_of_images(root, name, mode, options):
    write_image(root / 'train' / 'ant' / name, mode=mode, **options)
    dataset = build(root)
    image = dataset[list(labels(dataset)).index(f'ant/{name}')]['img']
    assert image.shape == (8, 12, 3)
    assert image.dtype == np.uint8


def test_rotated_photographs_are_turned_upright(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    write_image(root / 'train' / 'ant' / '0.jpg', exif=exif)
    dataset = build(root)
    assert dataset[0]['img_path'].endswith('0.jpg')
    assert dataset[0]['img'].shape == (12, 8, 3)


@pytest.mark.parametrize('transform', ['RandomResizedCrop', 'ResizeEdge'])
def test_an_image_of_one_pixel(root, transform):
    write_image(root / 'train' / 'ant' / '0.png', size=(1, 1))
    image = build(root, pipeline=[*LOAD, dict(type=transform, scale=16)])[0]['img']
    assert image.shape == (16, 16, 3)
    assert np.ptp(image[..., 0]) == 0


def test_missing_folders(root):
    with pytest.raises(FileNotFoundError, match=r"image folder '.*nowhere/train' does not exist .*set data_root to"):
        build(root / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r"image folder '.*/test' does not exist"):
        build(root, 'test')


def test_no_classes(root):
    with pytest.raises(ValueError, match=r"/train/ant' has no folder; a classifier needs at least two classes"):
        build(root, 'train/ant')


def test_a_single_class(root):
    write_image(root / 'one' / 'ant' / '0.png')
    with pytest.raises(ValueError, match=r"/one' has only one folder, 'ant'; a classifier needs at least two classes"):
        build(root, 'one')


def test_classes_without_images(root):
    for name in ('cow', 'dog'):
        (root / 'train' / name).mkdir()
    (root / 'train' / 'cow' / 'readme.md').write_text('to do')
    with pytest.raises(ValueError, match=r'class folders without an image: cow, dog; images end in \.bmp, .*remove'):
        build(root)


def test_other_classes_than_in_training(root):
    (root / 'val' / 'bee').rename(root / 'val' / 'Bee')
    with pytest.raises(ValueError, match='only in the folder Bee; only in the classes bee'):
        build(root, 'val', classes=build(root).metainfo['classes'])


def test_labels_of_an_annotation_file(root):
    (root / 'list.txt').write_text('ant/0.png 0\nbee/0.png 1\nbee/1.png 1\n')
    assert labels(build(root, ann_file='list.txt', classes=['ant', 'bee'])) == {
        'ant/0.png': 0,
        'bee/0.png': 1,
        'bee/1.png': 1,
    }
    with pytest.raises(ValueError, match=r'gives labels as numbers; name them with classes='):
        build(root, ann_file='list.txt')
    for wrong in (2, -1):
        (root / 'list.txt').write_text(f'ant/0.png 0\nbee/0.png {wrong}\n')
        with pytest.raises(ValueError, match=rf"bee/0\.png' the label {wrong}; labels must be from 0 to 1, for the 2"):
            build(root, ann_file='list.txt', classes=['ant', 'bee'])


def test_images_without_labels(root):
    dataset = build(root, with_label=False)
    assert len(dataset) == 4
    assert 'gt_label' not in dataset.get_data_info(0)


@pytest.mark.parametrize('content', [b'', b'this is text', b'\x89PNG\r\n\x1a\n'])
@pytest.mark.parametrize('test_mode', [True, False])
def test_corrupt_images_are_named(root, content, test_mode):
    (root / 'train' / 'ant' / '1.png').write_bytes(content)
    dataset = build(root, test_mode=test_mode)
    assert type(dataset.pipeline.transforms[0]) is DefocusLoadImage
    with pytest.raises(ValueError, match=r"image file '.*/ant/1\.png' (cannot be decoded|is truncated)"):
        dataset[1]


def test_a_truncated_photograph_is_named(root):
    path = write_image(root / 'train' / 'ant' / '1.jpg', size=(64, 64))
    path.write_bytes(path.read_bytes()[:-20])
    dataset = build(root)
    with pytest.raises(ValueError, match=r"image file '.*/ant/1\.jpg' is truncated"):
        dataset[list(labels(dataset)).index('ant/1.jpg')]


def test_images_of_an_annotation_file_that_do_not_exist(root):
    (root / 'list.txt').write_text('ant/0.png 0\nant/7.png 0\nbee/1.png 1\n')
    with pytest.raises(FileNotFoundError, match=r"list\.txt' lists 3 images, of which 1 do not exist, .*ant/7\.png'"):
        build(root, ann_file='list.txt', classes=['ant', 'bee'])


def test_images_that_a_transform_fails_at_are_named(root):
    write_image(root / 'train' / 'ant' / '1.png', size=(1000, 3))
    dataset = build(root, pipeline=[*LOAD, dict(type='Resize', scale=(160, 160), keep_ratio=True)])
    with pytest.raises(ValueError, match=r"image file '.*ant/1\.png': the pipeline failed in .* with error: OpenCV"):
        dataset[1]
