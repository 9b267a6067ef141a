"""Annotation files that are not in COCO format, or contradict themselves."""

import pytest
from coco_files import build, write


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
        ('{"images": [], "annotations": [], "categories": []}', 'must list images, got an empty list; export it again'),
        (
            '{"images": [3], "annotations": [], "categories": []}',
            'image 0 must be an object with id, .*, got 3; write or export it again',
        ),
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
    with pytest.raises(
        ValueError, match=r"have an image_id that is not in the file's images: 8; the file has 7, 9; correct these"
    ):
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
        (
            'images',
            'file_name',
            5,
            'the file_name of image 7 must be a string that is not empty, got 5; write the path',
        ),
        (
            'images',
            'file_name',
            '',
            "the file_name of image 7 must be a string that is not empty, got ''; write the path",
        ),
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
