import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.utils import register_all_modules
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmdefocus.datasets import DataError, DefocusCocoDataset, DefocusLoadImage

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True)]


@pytest.fixture
def content() -> dict[str, Any]:
    """Two images, two categories with gaps in their ids, three boxes."""
    return dict(
        images=[
            dict(id=7, file_name='a.jpg', width=40, height=30),
            dict(id=9, file_name='b.jpg', width=40, height=30),
        ],
        annotations=[
            dict(id=1, image_id=7, category_id=3, bbox=[1, 2, 10, 12], area=120, iscrowd=0),
            dict(id=2, image_id=7, category_id=5, bbox=[20, 5, 8.5, 9], area=76.5, iscrowd=0),
            dict(id=3, image_id=9, category_id=5, bbox=[0, 0, 40, 30], area=1200, iscrowd=1),
        ],
        categories=[dict(id=3, name='cat'), dict(id=5, name='dog')],
    )


def write(root: Path, content: Any) -> None:
    (root / 'images').mkdir(exist_ok=True)
    (root / 'ann.json').write_text(content if isinstance(content, str) else json.dumps(content))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for name in ('a.jpg', 'b.jpg'):
        Image.fromarray(pixels).save(root / 'images' / name)


def build(root: Path, classes: Any = ('cat', 'dog'), **kwargs: Any) -> DefocusCocoDataset:
    kwargs = dict(pipeline=LOAD, metainfo=dict(classes=classes)) | kwargs
    return DefocusCocoDataset(data_root=str(root), ann_file='ann.json', data_prefix=dict(img='images/'), **kwargs)


def test_is_found_from_the_scope_of_mmdetection():
    register_all_modules(init_default_scope=False)
    assert MMDET_DATASETS.get('DefocusCocoDataset') is DefocusCocoDataset
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert DATASETS.get('DefocusCocoDataset') is DefocusCocoDataset


@pytest.mark.parametrize('test_mode', [False, True])
def test_good_data_is_read_as_mmdetection_reads_it(tmp_path, content, test_mode):
    write(tmp_path, content)
    ours = build(tmp_path, test_mode=test_mode, filter_cfg=dict(filter_empty_gt=True))
    stock = CocoDataset(
        data_root=str(tmp_path),
        ann_file='ann.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
        test_mode=test_mode,
        filter_cfg=dict(filter_empty_gt=True),
    )
    assert len(ours) == len(stock) == 2
    assert [ours.get_data_info(i) for i in range(2)] == [stock.get_data_info(i) for i in range(2)]
    assert ours.cat_ids == stock.cat_ids == [3, 5]
    sample = ours[0]
    assert sample['img'].shape == (30, 40, 3)
    assert sample['gt_bboxes'].numpy().tolist() == [[1, 2, 11, 14], [20, 5, 28.5, 14]]
    assert sample['gt_bboxes_labels'].tolist() == [0, 1]


def test_coco_2017_passes(tmp_path, photos_coco):
    """80 classes with ids up to 90, a crowd, an image without annotations, unused keys."""
    annotations = json.loads((photos_coco / 'annotations' / 'instances_train2017.json').read_text())
    annotations['images'].append(dict(id=3, file_name='empty.jpg', width=640, height=427, coco_url='http://x'))
    (tmp_path / 'more.json').write_text(json.dumps(annotations))
    settings = dict(ann_file=str(tmp_path / 'more.json'), data_prefix=dict(img=str(photos_coco / 'train2017')))
    assert len(DefocusCocoDataset(**settings)) == 3
    assert len(DefocusCocoDataset(**settings, filter_cfg=dict(filter_empty_gt=True, min_size=32))) == 2
    dataset = DefocusCocoDataset(**settings, test_mode=True)
    assert dataset.cat_ids == [category['id'] for category in annotations['categories']]
    assert len(dataset.get_data_info(0)['instances']) == 9


def test_missing_annotation_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ann\.json' does not exist \(data_root='.*set data_root and ann_file"):
        build(tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('version https://git-lfs.github.com/spec/v1', r"is not valid JSON .*begins with b'version https://git-lfs"),
        ('', 'is not valid JSON'),
        ('[1, 2]', 'not in COCO format: expected an object with images, annotations and categories, got a list'),
        ('{"images": [], "labels": []}', 'no list annotations, categories, found images, labels'),
        ('{"images": {}, "annotations": [], "categories": []}', 'no list images, found'),
        ('{"images": [], "annotations": [], "categories": []}', 'lists no images'),
        ('{"images": [3], "annotations": [], "categories": []}', 'image 0 must be an object, got int'),
    ],
)
def test_files_that_are_not_coco(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        build(tmp_path)


@pytest.mark.parametrize(
    ('kind', 'key', 'message'),
    [
        ('images', 'width', 'image 0 has no width; each needs id, file_name, height, width'),
        ('categories', 'name', 'category 0 has no name; each needs id, name'),
        ('annotations', 'bbox', 'annotation 0 has no bbox; each needs'),
        ('annotations', 'area', 'annotation 0 has no area; .*area may be the width times the height'),
    ],
)
def test_missing_keys(tmp_path, content, kind, key, message):
    del content[kind][0][key]
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        build(tmp_path)


def test_iscrowd_is_needed_for_testing_only(tmp_path, content):
    for ann in content['annotations']:
        del ann['iscrowd']
    write(tmp_path, content)
    assert len(build(tmp_path)) == 2
    with pytest.raises(ValueError, match=r'annotation 0 has no iscrowd; .*iscrowd is 0 for a single object'):
        build(tmp_path, test_mode=True)


@pytest.mark.parametrize(
    ('kind', 'key', 'message'),
    [
        ('images', 'id', 'the image id 9 occurs more than once'),
        ('annotations', 'id', 'the annotation id 3 occurs more than once'),
        ('categories', 'id', 'the category id 5 occurs more than once'),
        ('categories', 'name', "the category name 'dog' occurs more than once"),
    ],
)
def test_duplicates(tmp_path, content, kind, key, message):
    content[kind][0][key] = content[kind][-1][key]
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        build(tmp_path)


def test_unknown_category_id(tmp_path, content):
    content['annotations'][1]['category_id'] = 4
    write(tmp_path, content)
    expected = (
        r'1 annotations \(the first has id 2\) have a category_id that is not in .*categories: 4; the file has 3, 5'
    )
    with pytest.raises(ValueError, match=expected):
        build(tmp_path)


def test_unknown_image_id(tmp_path, content):
    content['annotations'][1]['image_id'] = 8
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r"have a image_id that is not in the file's images: 8; the file has 7, 9$"):
        build(tmp_path)


def test_ids_with_and_without_quotes_look_different(tmp_path, content):
    for ann in content['annotations']:
        ann['image_id'] = str(ann['image_id'])
    write(tmp_path, content)
    expected = r'images: "7", "9"; the file has 7, 9; 1 and "1" are different ids'
    with pytest.raises(ValueError, match=expected):
        build(tmp_path)


@pytest.mark.parametrize(
    ('kind', 'key', 'value', 'message'),
    [
        ('images', 'id', [7], r'the id of image 0 must be a whole number or a string, got \[7\]'),
        ('images', 'id', None, 'the id of image 0 must be a whole number or a string, got None'),
        (
            'images',
            'id',
            '7',
            r"the id of some image entries is a string \('7'\) and of others a number \(9\); write all",
        ),
        ('annotations', 'id', None, 'the id of annotation 0 must be a whole number or a string, got None'),
        ('annotations', 'id', 0.5, 'the id of annotation 0 must be .*, got 0.5'),
        ('annotations', 'image_id', [7], r'the image_id of annotation 0 must be .*, got \[7\]'),
        ('annotations', 'image_id', True, 'the image_id of annotation 0 must be .*, got True'),
        ('annotations', 'category_id', {}, r'the category_id of annotation 0 must be .*, got \{\}'),
        ('categories', 'id', None, 'the id of category 0 must be .*, got None'),
        ('categories', 'name', 1, 'the name of category 3 must be a string, got 1; write "1" with quotes in the file'),
        ('images', 'file_name', 5, 'the file_name of image 7 must be a string, got 5'),
        ('images', 'file_name', '', "the file_name of image 7 must be a string, got ''"),
        ('images', 'width', '40', r"the width of image 7 \('a\.jpg'\) must be a whole number of pixels .*, got '40'"),
        ('images', 'width', 1e308, r'the width of image 7 .* pixels from 1 to 1048576, got 1e\+308'),
        ('images', 'width', 40.5, 'the width of image 7 .*, got 40.5'),
        ('images', 'height', 0, 'the height of image 7 .*, got 0'),
        ('images', 'height', None, 'the height of image 7 .*, got None'),
        ('images', 'height', float('nan'), 'the height of image 7 .*, got nan'),
        (
            'annotations',
            'bbox',
            [0, 0, 1e308, 5],
            'the bbox of annotation 1 must be in pixels, from -1048576 to 1048576',
        ),
        ('annotations', 'bbox', [-1e308, 0, 5, 5], 'the bbox of annotation 1 must be in pixels'),
        ('annotations', 'bbox', [0, 0, 10**400, 5], 'the bbox of annotation 1 must be in pixels'),
        ('annotations', 'area', 1e308, r'the area of annotation 1 must be a finite number up to 1e\+10, got 1e\+308'),
        ('annotations', 'iscrowd', '0', "iscrowd of annotation 1 must be 0 or 1, without quotes, got '0'"),
        ('annotations', 'iscrowd', 2, 'iscrowd of annotation 1 must be 0 or 1, .*, got 2'),
        ('annotations', 'ignore', 'no', "ignore of annotation 1 must be 0 or 1, .*, got 'no'"),
    ],
)
@pytest.mark.parametrize('test_mode', [False, True])
def test_values_of_a_wrong_kind(tmp_path, content, kind, key, value, message, test_mode):
    content[kind][0][key] = value
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, test_mode=test_mode)


@pytest.mark.parametrize('file_name', ['a.jpg', './a.jpg'])
def test_one_image_listed_twice(tmp_path, content, file_name):
    content['images'][1]['file_name'] = file_name
    write(tmp_path, content)
    with pytest.raises(
        ValueError, match=r'images 7 and 9 are the same file .*a\.jpg.; list it once, with all its annot'
    ):
        build(tmp_path)


def as_corners(content: dict[str, Any]) -> None:
    for ann in content['annotations']:
        x, y, w, h = ann['bbox']
        ann['bbox'] = [x, y, x + w, y + h]


@pytest.mark.parametrize('test_mode', [False, True])
def test_boxes_given_by_two_corners(tmp_path, content, test_mode):
    content['annotations'][0].update(bbox=[25, 10, 10, 12])
    as_corners(content)
    write(tmp_path, content)
    expected = (
        r'2 of 3 boxes reach beyond their image, but would lie inside if they were \[x1, y1, x2, y2\]\. .*write '
        r'\[x1, y1, x2 - x1, y2 - y1\] \(for annotation 1, \[25, 10, 10, 12\] instead of \[25, 10, 35, 22\]\)'
    )
    with pytest.raises(ValueError, match=expected):
        build(tmp_path, test_mode=test_mode)


def test_digits_given_by_two_corners(tmp_path, digits_coco):
    annotations = json.loads((digits_coco / 'annotations' / 'instances_train.json').read_text())
    as_corners(annotations)
    (tmp_path / 'corners.json').write_text(json.dumps(annotations))
    classes = [category['name'] for category in annotations['categories']]
    with pytest.raises(ValueError, match=r'would lie inside if they were \[x1, y1, x2, y2\]'):
        DefocusCocoDataset(
            ann_file=str(tmp_path / 'corners.json'),
            data_prefix=dict(img=str(digits_coco / 'train')),
            metainfo=dict(classes=classes),
        )


@pytest.mark.parametrize(
    ('boxes', 'beyond'),
    [
        ([[0, 0, 41, 31], [0, 0, 40.5, 30.9], [1, 1, 40, 30]], 0),  # rounded up
        ([[30, 20, 20, 20], [0, 0, 40, 30], [0, 0, 40, 30]], 1),  # one is not visible as a whole
        ([[30, 20, 20, 15], [35, 2, 15, 12], [20, 20, 25, 12]], 3),  # larger than the image when read as corners, too
    ],
)
def test_boxes_over_the_border_are_no_corners(tmp_path, content, boxes, beyond, monkeypatch):
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    for ann, box in zip(content['annotations'], boxes, strict=True):
        ann['bbox'] = box
    write(tmp_path, content)
    assert len(build(tmp_path)) == 2
    assert said == [
        f"'{tmp_path}/ann.json': {beyond} of 3 boxes reach beyond their image; do they belong to images of another size?"
    ] * (beyond > 0)


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


def test_missing_images_that_are_left_out_do_no_harm(tmp_path, content):
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
    expected = r"image file '.*b\.jpg' \(1000x3 pixels\): the pipeline failed with error: OpenCV"
    with pytest.raises(ValueError, match=expected):
        dataset[1]


@pytest.mark.parametrize(
    'box', [[1, 2, 3], [1, 2, 3, float('nan')], [1, 2, 3, float('inf')], [1, 2, 3, '4'], 'box', None, [1, 2, 3, True]]
)
def test_malformed_boxes(tmp_path, content, box):
    content['annotations'][1]['bbox'] = box
    write(tmp_path, content)
    expected = r'bbox of annotation 2 must be \[x, y, width, height\] in pixels, four finite numbers, got'
    with pytest.raises(ValueError, match=expected):
        build(tmp_path)


def test_nan_area(tmp_path, content):
    content['annotations'][1]['area'] = float('nan')
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r'area of annotation 2 must be a finite number up to 1e\+10, got nan'):
        build(tmp_path)


def test_categories_that_the_config_lacks(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='the config does not, and their boxes would be lost: dog') as info:
        build(tmp_path, classes=('cat',))
    message = str(info.value)
    assert 'in the file (2): cat, dog' in message
    assert 'in the config (1): cat' in message
    assert "metainfo=dict(classes=('cat', 'dog'))" in message
    assert 'num_classes=2' in message
    assert 'allow_missing_categories=True' in message


def test_subset_of_the_categories_on_purpose(tmp_path, content, monkeypatch):
    write(tmp_path, content)
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    dataset = build(tmp_path, classes=('dog',), allow_missing_categories=True)
    assert [[one['bbox_label'] for one in dataset.get_data_info(i)['instances']] for i in range(2)] == [[0], [0]]
    assert len(said) == 1
    assert '1 of 3 boxes are ignored: their categories are not in the classes' in said[0]


@pytest.mark.parametrize('allow', [False, True])
def test_classes_that_the_file_lacks(tmp_path, content, allow):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='the config has classes that the file does not: bird') as info:
        build(tmp_path, classes=('cat', 'bird', 'dog'), allow_missing_categories=allow)
    assert "metainfo=dict(classes=('cat', 'dog'))" in str(info.value)
    assert 'allow_missing' not in str(info.value)


def test_default_classes_on_own_data(tmp_path, content):
    content['categories'][0]['name'] = 'forklift'
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r'in the config \(80\): person, bicycle.* \(80 in all\)'):
        build(tmp_path, metainfo=None)


def test_classes_in_another_order(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='not in the order of the file, and names would be mixed up'):
        build(tmp_path, classes=('dog', 'cat'))


def test_single_class_without_a_comma(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(DataError, match=r"classes must be a tuple of names, got 'cat'; .* write classes=\('cat',\)"):
        build(tmp_path, classes='cat')


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (dict(bbox=[0.1, 0.2, 0.5, 0.5]), r'\(3 boxes, 3 of them degenerate, 1 crowds\); boxes are given in pixels'),
        (dict(iscrowd=1), r'\(3 boxes, 0 of them degenerate, 3 crowds\)$'),
        (dict(ignore=1), r'\(3 boxes, 0 of them degenerate, 1 crowds\)$'),
        (None, r'\(0 boxes, 0 of them degenerate, 0 crowds\)$'),
    ],
)
def test_nothing_to_train_on(tmp_path, content, change, expected, monkeypatch):
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    content['annotations'] = [ann | change for ann in content['annotations']] if change else []
    write(tmp_path, content)
    with pytest.raises(ValueError, match='no usable box to train on ' + expected):
        build(tmp_path)
    said.clear()
    assert len(build(tmp_path, test_mode=True)) == 2
    assert 'every AP will be -1' in said[-1]


def test_image_lists_without_annotations_can_be_tested_only(tmp_path, content):
    del content['annotations']
    write(tmp_path, content)
    assert len(build(tmp_path, test_mode=True)) == 2
    with pytest.raises(ValueError, match='no list annotations'):
        build(tmp_path)


@pytest.mark.parametrize(
    ('box', 'area'),
    [
        ([5, 5, 0, 9], 9),
        ([5, 5, 9, -1], 9),
        ([5, 5, 0.5, 9], 4.5),
        ([5, 5, 9, 0.5], 4.5),
        ([50, 5, 9, 9], 81),
        ([-20, 5, 9, 9], 81),
        ([5, 40, 9, 9], 81),
        ([5, -20, 9, 9], 81),
        ([5, 5, 9, 9], 0),
        ([5, 5, 9, 9], -81),
    ],
)
def test_degenerate_boxes_are_dropped_and_counted(tmp_path, content, box, area, monkeypatch):
    said = []
    monkeypatch.setattr('mmdefocus.datasets.coco.print_log', lambda message, **kwargs: said.append(message))
    content['annotations'][0].update(bbox=box, area=area)
    write(tmp_path, content)
    dataset = build(tmp_path)
    assert [len(dataset.get_data_info(i)['instances']) for i in range(2)] == [1, 1]
    assert len(said) == 1
    assert '1 of 3 boxes are smaller than a pixel, have no area or lie outside' in said[0]
    assert 'the first is annotation 1' in said[0]


def test_filter_that_leaves_nothing(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match=r"filter_cfg=\{'min_size': 100\} leaves none of 2 images"):
        build(tmp_path, filter_cfg=dict(min_size=100))


def test_unknown_arguments_are_refused(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(TypeError, match='anotation_file'):
        build(tmp_path, anotation_file='x')


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
            r"begins with b'not an image'\); repair it, or remove",
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


def test_images_that_would_be_passed_over(tmp_path, content):
    write(tmp_path, content)
    with pytest.raises(ValueError, match='ignore_empty=True would leave out unreadable images'):
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
