"""Every layout is recognised from its files, and all of them give the same boxes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import source_sets as sets
import yaml

from mmdefocus.datasets import DataError, DefocusCocoDataset, DefocusImageFolder, MissingFileError
from mmdefocus.datasets.prepared import PreparedData, load_prepared, prepare_data, read_data

LOAD = [dict(type='LoadImageFromFile')]
DETECTION: dict[str, tuple[Callable[[Path], Path], str]] = {
    'coco': (sets.make_coco, 'coco'),
    'roboflow': (sets.make_roboflow, 'coco'),
    'yolo': (sets.make_yolo, 'yolo'),
    'yolo of roboflow': (lambda root: sets.make_yolo(root, roboflow=True), 'yolo'),
    'voc': (sets.make_voc, 'voc'),
    'voc of roboflow': (lambda root: sets.make_voc(root, roboflow=True), 'voc'),
}


def found_boxes(data: PreparedData, split: str) -> dict[str, list[tuple[str, list[float]]]]:
    """Return the boxes that DefocusCocoDataset loads, with the names of their classes."""
    prepared = data.splits[split]
    dataset = DefocusCocoDataset(
        ann_file=str(prepared.ann_file),
        data_prefix=dict(img=str(prepared.image_root)),
        metainfo=dict(classes=data.classes, category_ids=list(data.category_ids)),
        pipeline=LOAD,
        test_mode=split != 'train',
    )
    boxes = {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes[Path(info['img_path']).name] = [
            (data.classes[one['bbox_label']], [float(value) for value in one['bbox']]) for one in info['instances']
        ]
        dataset[index]  # The size of the file is that of the annotation.
    return boxes


@pytest.mark.parametrize('layout', DETECTION)
def test_boxes_and_names_are_those_of_the_source_in_every_layout(tmp_path, layout):
    make, expected_format = DETECTION[layout]
    data = prepare_data(make(tmp_path / 'my data'), tmp_path / 'out')
    assert (data.format, data.task, list(data.splits)) == (expected_format, 'detection', ['train', 'val'])
    assert data.classes == (tuple(sorted(sets.NAMES)) if expected_format == 'voc' else sets.NAMES)
    for split in data.splits:
        truth = sets.make_pictures(tmp_path / 'truth', split)
        expected = {
            name: [(sets.NAMES[label], pytest.approx([x, y, x + w, y + h], abs=1e-3)) for label, (x, y, w, h) in boxes]
            for name, boxes in truth.items()
        }
        assert found_boxes(data, split) == expected
        assert data.splits[split].images == len(truth)
        assert data.splits[split].objects == sum(map(len, truth.values()))
    assert (data.splits['train'].largest, data.splits['train'].most_objects) == ((64, 48), 2)
    assert load_prepared(tmp_path / 'out') == data


@pytest.mark.parametrize('splits', [('train', 'val'), ()], ids=['with splits', 'without splits'])
def test_class_folders_give_labels_in_alphabetical_order(tmp_path, splits):
    root = sets.make_class_folders(tmp_path / 'my data', splits)
    (root / 'train' / 'one' if splits else root / 'one').joinpath('a b 3.png').write_bytes(
        next(root.glob('**/one/*.png')).read_bytes()
    )
    data = prepare_data(root, tmp_path / 'out')
    assert (data.format, data.task, data.classes) == ('folders', 'classification', ('one', 'three', 'two'))
    seen = []
    for split in data.splits.values():
        dataset = DefocusImageFolder(
            ann_file=str(split.ann_file),
            data_prefix=str(split.image_root),
            classes=str(tmp_path / 'out' / 'classes.txt'),
            pipeline=LOAD,
        )
        assert dataset.metainfo['classes'] == data.classes
        for index in range(len(dataset)):
            info = dataset[index]
            assert Path(info['img_path']).parent.name == data.classes[info['gt_label']]
            seen.append(info['img_path'])
    assert sorted(seen) == sorted(str(path) for path in root.rglob('*.png'))


def test_json_and_yaml_files_may_be_named(tmp_path):
    coco, yolo = sets.make_coco(tmp_path / 'coco'), sets.make_yolo(tmp_path / 'yolo')
    source = read_data(coco / 'annotations' / 'instances_val.json')
    assert list(source.splits) == ['val']
    assert source.splits['val'].image_root == coco / 'val'
    assert read_data(yolo / 'data.yaml').splits == read_data(yolo).splits


def test_a_single_json_file_with_images_is_a_training_split(tmp_path):
    boxes = sets.make_pictures(tmp_path / 'images', 'train')
    (tmp_path / 'labels_my-project.json').write_text(json.dumps(sets.coco_content(boxes)))
    source = read_data(tmp_path)
    assert list(source.splits) == ['train']
    assert source.splits['train'].image_root == tmp_path / 'images'


def test_folders_named_by_year_and_validation_are_found(tmp_path):
    root = sets.make_coco(tmp_path / 'set', ('train', 'val', 'test'))
    for old, new in (('train', 'train2017'), ('val', 'validation')):
        (root / old).rename(root / new)
    (root / 'annotations' / 'instances_train.json').rename(root / 'annotations' / 'instances_train2017.json')
    (root / 'annotations' / 'captions_train2017.json').write_text('{}')
    source = read_data(root)
    assert {name: split.image_root.name for name, split in source.splits.items()} == {
        'train': 'train2017',
        'val': 'validation',
        'test': 'test',
    }
    assert source.notes == ('Not read, as their names say no split: captions_train2017.json.',)


def test_a_prepared_folder_is_read_again(tmp_path):
    data = prepare_data(sets.make_yolo(tmp_path / 'set'), tmp_path / 'out')
    again = prepare_data(tmp_path / 'out', tmp_path / 'again')
    assert found_boxes(again, 'val') == found_boxes(data, 'val')
    assert (again.classes, again.category_ids, again.format) == (data.classes, data.category_ids, 'yolo')


def test_nothing_recognised_names_what_is_there_and_what_was_expected(tmp_path):
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'labels.csv').write_text('a,b')
    with pytest.raises(DataError, match=r'no data set recognised. It has labels.csv, pictures/') as error:
        read_data(tmp_path)
    for layout in ('COCO: annotations/', 'YOLO: data.yaml', 'Pascal VOC: Annotations/', 'class folders: train/'):
        assert layout in str(error.value)
    with pytest.raises(DataError, match=r"A file must end in .yaml, .yml or .json, got 'labels.csv'"):
        read_data(tmp_path / 'labels.csv')
    with pytest.raises(MissingFileError, match='does not exist'):
        read_data(tmp_path / 'nowhere')


def test_several_formats_are_ambiguous(tmp_path):
    sets.make_yolo(tmp_path)
    sets.make_coco(tmp_path / 'coco')
    (tmp_path / 'coco' / 'annotations').rename(tmp_path / 'annotations')
    with pytest.raises(DataError, match='has data in several formats: COCO, YOLO'):
        read_data(tmp_path)
    assert read_data(tmp_path / 'data.yaml').format == 'yolo'


@pytest.mark.parametrize('names', [('train.json', 'instances_train.json'), ('train2014.json', 'train2017.json')])
def test_two_files_of_a_split_are_ambiguous(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text('{}')
    with pytest.raises(DataError, match='both stand for the split train'):
        read_data(tmp_path)


def test_a_task_that_the_data_are_not_for_is_refused(tmp_path):
    root = sets.make_coco(tmp_path / 'set')
    with pytest.raises(DataError, match='has COCO, which are for detection, but the task is classification'):
        read_data(root, task='classification')


def test_folders_of_another_format_are_no_classes(tmp_path):
    sets.make_yolo(tmp_path)
    (tmp_path / 'data.yaml').write_text(yaml.safe_dump(dict(train='images/train')))
    with pytest.raises(DataError, match='no data set recognised'):
        read_data(tmp_path)


@pytest.mark.parametrize('roboflow', [True, False])
def test_a_yaml_without_splits_gets_those_of_the_folders(tmp_path, roboflow):
    """supervision writes such files."""
    sets.make_yolo(tmp_path, roboflow=roboflow)
    complete = read_data(tmp_path)
    file = tmp_path / 'data.yaml'
    file.write_text('\n'.join(line for line in file.read_text().splitlines() if not line.startswith(('train', 'val'))))
    found = read_data(tmp_path)
    assert {name: split.content for name, split in found.splits.items()} == {
        name: split.content for name, split in complete.splits.items()
    }
    assert any(note.startswith('data.yaml names no splits: they are ') for note in found.notes)
