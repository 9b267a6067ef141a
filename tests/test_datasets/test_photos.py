import contextlib
import io
import json
from importlib import resources

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from mmdefocus.datasets.photos import describe_photos, make_photos_coco


def test_files_are_the_original_photographs(photos_coco):
    for split in ('train2017', 'val2017'):
        assert sorted(path.name for path in (photos_coco / split).iterdir()) == ['china.jpg', 'flower.jpg']
        for name in ('china.jpg', 'flower.jpg'):
            original = resources.files('sklearn.datasets.images').joinpath(name).read_bytes()
            assert (photos_coco / split / name).read_bytes() == original
        assert json.loads((photos_coco / 'annotations' / f'instances_{split}.json').read_text()) == describe_photos()


def test_categories_are_those_of_coco():
    categories = describe_photos()['categories']
    assert tuple(category['name'] for category in categories) == CocoDataset.METAINFO['classes']
    ids = {category['name']: category['id'] for category in categories}
    published = dict(person=1, boat=9, bird=16, backpack=27, chair=62, vase=86, toothbrush=90)
    published['potted plant'] = 64
    assert {name: ids[name] for name in published} == published


def test_annotations_are_complete():
    content = describe_photos()
    assert content['licenses'] == []
    assert 'two sample photographs' in content['info']['description']
    assert content['images'][0] == dict(id=1, file_name='china.jpg', width=640, height=427)
    assert [ann['id'] for ann in content['annotations']] == list(range(1, 12))


@pytest.fixture
def masks():
    """The annotations by id, each with its pixels as pycocotools draws them."""
    coco = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = describe_photos()
        coco.createIndex()
    return {number: (ann, coco.annToMask(ann).astype(bool)) for number, ann in coco.anns.items()}


def test_masks_fill_their_boxes(masks):
    for ann, mask in masks.values():
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        bounds = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        x, y, width, height = ann['bbox']
        assert np.abs(bounds - [x, y, x + width, y + height]).max() <= 1.5
        # The polygons of the boats are a few pixels large, and pycocotools draws whole pixels.
        assert ann['area'] == pytest.approx(mask.sum(), rel=0.002, abs=8)


def test_crowd_region_is_its_box_as_run_lengths(masks):
    ((ann, mask),) = [entry for entry in masks.values() if entry[0]['iscrowd']]
    assert isinstance(ann['segmentation']['counts'], list)
    assert sum(ann['segmentation']['counts']) == mask.size
    expected = np.zeros_like(mask)
    expected[239:270, 350:548] = True
    assert np.array_equal(mask, expected)
    assert ann['area'] == mask.sum()


def test_outlines_of_the_dahlias_separate_orange_from_green(masks):
    image = Image.open(resources.files('sklearn.datasets.images').joinpath('flower.jpg'))
    red, _, blue = np.moveaxis(np.asarray(image).astype(int), -1, 0)
    orange = red - blue > 45
    for number in (10, 11):
        _, mask = masks[number]
        around = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=1)
        within = mask & ~ndimage.binary_erosion(mask, iterations=8)
        assert orange[within].mean() > 0.93
        assert orange[around].mean() < 0.2  # a bud, out of focus, is behind the second one


def test_an_empty_directory_is_used(tmp_path):
    assert make_photos_coco(tmp_path)
    assert (tmp_path / 'train2017' / 'china.jpg').is_file()


def test_stock_dataset_reads_every_box(photos_coco):
    dataset = CocoDataset(
        data_root=str(photos_coco),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=[],
    )
    assert [len(dataset.get_data_info(index)['instances']) for index in range(2)] == [9, 2]
    assert sum(instance['ignore_flag'] for instance in dataset.get_data_info(0)['instances']) == 1


def test_set_is_reused_and_damage_is_noticed(tmp_path):
    out = tmp_path / 'photos'
    assert make_photos_coco(out)
    assert not make_photos_coco(out)
    (out / 'val2017' / 'china.jpg').write_bytes(b'')
    with pytest.raises(FileExistsError, match='damaged or older set of photographs; use --force'):
        make_photos_coco(out)
    assert make_photos_coco(out, force=True)
    assert not make_photos_coco(out)


def test_foreign_directories_are_never_replaced(tmp_path):
    (tmp_path / 'thesis.txt').write_text('keep me')
    with pytest.raises(FileExistsError, match='is not a set made by this tool'):
        make_photos_coco(tmp_path, force=True)
    assert (tmp_path / 'thesis.txt').exists()
