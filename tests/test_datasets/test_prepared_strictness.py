"""What the data sets refuse is refused at preparation, with a remedy; what is added or left out is noted."""

import json
import shutil
from pathlib import Path

import pytest
import source_sets as sets
from PIL import Image

from mmdefocus.datasets import DataError, DefocusCocoDataset, MissingFileError
from mmdefocus.datasets.prepared import load_prepared, prepare_data


def change(root: Path, action, split: str = 'train') -> None:
    """Change the content of an annotation file in place."""
    file = root / 'annotations' / f'instances_{split}.json'
    content = json.loads(file.read_text())
    action(content)
    file.write_text(json.dumps(content))


def corners(content) -> None:
    for number, ann in enumerate(content['annotations']):
        ann['bbox'] = [30, 24, 60 - number % 2, 47]


MISTAKES = {
    'unknown category': (
        lambda content: content['annotations'][0].update(category_id=77),
        'category_id that is not in',
    ),
    'unknown image': (lambda content: content['annotations'][0].update(image_id=77), 'image_id that is not in'),
    'category twice': (lambda content: content['categories'].append(content['categories'][0]), 'more than once'),
    'box of three': (
        lambda content: content['annotations'][0].update(bbox=[1, 2, 3]),
        r'must be \[x, y, width, height\]',
    ),
    'no box': (lambda content: content['annotations'][0].pop('bbox'), 'has no bbox'),
    'corners': (corners, r'would lie inside if they were \[x1, y1, x2, y2\]'),
    'no boxes': (lambda content: content['annotations'].clear(), 'has no usable box to train on'),
    'image twice': (lambda content: content['images'][1].update(file_name='train_00.png'), 'are the same file'),
    'area as text': (lambda content: content['annotations'][0].update(area='9'), 'area of annotation 1 must be'),
    'no size': (lambda content: content['images'][0].pop('width'), 'has no width'),
    'entry without fields': (lambda content: content['annotations'].append(5), 'must be an object'),
    'id as list': (lambda content: content['annotations'][0].update(category_id=[1]), 'must be a whole number'),
    'missing image': (lambda content: content['images'][0].update(file_name='gone.png'), '1 of 6 images do not exist'),
    'bad mask': (lambda content: content['annotations'][0].update(segmentation=['x']), 'segmentation of annotation 1'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_that_the_data_set_refuses_are_refused_with_the_remedy(tmp_path, mistake):
    action, message = MISTAKES[mistake]
    root = sets.make_coco(tmp_path / 'set')
    change(root, action)
    with pytest.raises(DataError, match=message) as error:
        prepare_data(root, tmp_path / 'out')
    assert f'"mmdefocus check-data {root}" lists all mistakes, and with --repair all --out OUT' in str(error.value)
    assert not (tmp_path / 'out').exists()
    with pytest.raises(DataError):
        DefocusCocoDataset(
            ann_file=str(root / 'annotations' / 'instances_train.json'),
            data_prefix=dict(img=str(root / 'train')),
            metainfo=dict(classes=sets.NAMES),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmdet.LoadAnnotations', with_mask=mistake == 'bad mask'),
            ],
        )


def test_areas_and_flags_are_added_and_noted(tmp_path):
    root = sets.make_coco(tmp_path / 'set')

    def remove(content):
        del content['annotations'][0]['area'], content['annotations'][1]['iscrowd']
        x, y, w, h = content['annotations'][0]['bbox']
        content['annotations'][0]['segmentation'] = [[x, y, x + w, y, x + w, y + h]]

    change(root, remove)
    data = prepare_data(root, tmp_path / 'out')
    content = json.loads(data.splits['train'].ann_file.read_text())
    first, second = content['annotations'][:2]
    assert (first['area'], second['iscrowd']) == (first['bbox'][2] * first['bbox'][3] / 2, 0)
    assert data.notes == (
        '1 boxes have no area: the area of the mask or box is used.',
        '1 boxes have no iscrowd: they count as single objects.',
    )
    assert not data.has_masks


def test_masks_of_all_boxes_are_announced(tmp_path):
    root = sets.make_yolo(tmp_path / 'set')
    for file in root.glob('labels/*/*.txt'):
        file.write_text('0 0.1 0.1 0.5 0.1 0.5 0.5\n')
    assert prepare_data(root, tmp_path / 'out').has_masks


def test_the_category_of_roboflow_is_kept_if_a_box_has_it(tmp_path):
    root = sets.make_roboflow(tmp_path / 'set')
    data = prepare_data(root, tmp_path / 'out')
    assert (data.classes, data.category_ids) == (sets.NAMES, (1, 2, 3))
    assert any(note.startswith("Category 0 'digits' is left out: no box has it") for note in data.notes)
    file = root / 'valid' / '_annotations.coco.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['category_id'] = 0
    file.write_text(json.dumps(content))
    assert prepare_data(root, tmp_path / 'out').classes == ('digits', *sets.NAMES)


def test_splits_with_other_ids_get_those_of_training(tmp_path):
    root = sets.make_coco(tmp_path / 'set')
    boxes = sets.make_pictures(root / 'val', 'val')
    content = sets.coco_content(boxes, first_id=30)
    content['categories'] = [dict(id=29, name='nothing'), *content['categories'][::-1]]
    (root / 'annotations' / 'instances_val.json').write_text(json.dumps(content))
    data = prepare_data(root, tmp_path / 'out')
    written = json.loads(data.splits['val'].ann_file.read_text())
    assert [ann['category_id'] + 29 for ann in written['annotations']] == [
        ann['category_id'] for ann in content['annotations']
    ]
    assert [category['id'] for category in written['categories']] == [1, 2, 3]
    assert 'val: the ids of its categories differ from those of train, which are used.' in data.notes
    assert 'val: the categories nothing are left out: no box has them, nor does train.' in data.notes


def test_categories_that_only_validation_has_are_refused(tmp_path):
    root = sets.make_coco(tmp_path / 'set')
    change(root, lambda content: content['categories'][0].update(name='zebra'), 'val')
    with pytest.raises(DataError, match='val has boxes of the categories zebra, which train does not list'):
        prepare_data(root, tmp_path / 'out')


def test_equal_inputs_give_equal_bytes_and_other_files_are_safe(tmp_path):
    root, out = sets.make_coco(tmp_path / 'set', ('train', 'test')), tmp_path / 'out'
    prepare_data(root, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(before) == ['data.json', 'test.json', 'train.json', 'val.json']
    prepare_data(root, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    prepare_data(root, out, val_fraction=0.5)
    assert {path.name: path.read_bytes() for path in out.iterdir()} != before
    (out / 'mine.txt').write_text('keep')
    with pytest.raises(DataError, match=r'has other files \(mine.txt\); expected a new or empty folder'):
        prepare_data(root, out)
    assert (out / 'mine.txt').read_text() == 'keep'


def test_images_of_training_in_validation_are_noted(tmp_path):
    root = sets.make_coco(tmp_path / 'set')
    shutil.copy(root / 'train' / 'train_00.png', root / 'val' / 'val_00.png')
    (note,) = prepare_data(root, tmp_path / 'out').notes
    assert note.startswith('1 images are in several splits with equal bytes, so that scores are too high; the first: ')


def test_classes_of_folders_must_have_training_images(tmp_path):
    root = sets.make_class_folders(tmp_path / 'set')
    (root / 'val' / 'zebra').mkdir()
    Image.new('RGB', (9, 9)).save(root / 'val' / 'zebra' / 'a.png')
    with pytest.raises(DataError, match='train has no image of the classes zebra'):
        prepare_data(root, tmp_path / 'out')


@pytest.mark.parametrize('name', ['a\u2028b.png', ' a.png', 'a\nb.png'])
def test_names_that_a_list_cannot_have_are_refused(tmp_path, name):
    root = sets.make_class_folders(tmp_path / 'set')
    Image.new('RGB', (9, 9)).save(root / 'train' / 'one' / name)
    if name.startswith(' '):  # The blank is inside the line, behind the folder.
        assert prepare_data(root, tmp_path / 'out').splits['train'].images == 7
        return
    with pytest.raises(DataError, match='has a line break, or a blank at one of its ends'):
        prepare_data(root, tmp_path / 'out')


def test_descriptions_of_other_versions_are_refused(tmp_path):
    (tmp_path / 'data.json').write_text('{"format_version": 99}')
    with pytest.raises(DataError, match='has version 99, expected 1'):
        load_prepared(tmp_path)
    with pytest.raises(MissingFileError, match='prepare the data set first'):
        load_prepared(tmp_path / 'nowhere')
    (tmp_path / 'data.json').write_text('[]')
    with pytest.raises(DataError, match='is not the description of a prepared data set'):
        load_prepared(tmp_path)
