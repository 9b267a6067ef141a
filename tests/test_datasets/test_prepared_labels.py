"""Readers of YOLO and Pascal VOC labels: nothing is lost, and clean sets are read as supervision reads them."""

import numpy as np
import pytest
import source_sets as sets
import yaml
from PIL import Image
from supervision.dataset.formats.pascal_voc import load_pascal_voc_annotations
from supervision.dataset.formats.yolo import load_yolo_annotations

from mmdefocus.datasets import DataError, MissingFileError
from mmdefocus.datasets.prepared import prepare_data, read_data


def yolo_set(root, label: str, **settings):
    """Write a set with one training image of 100x50 pixels, its label and data.yaml."""
    for folder in ('images', 'labels'):
        (root / folder / 'train').mkdir(parents=True)
    Image.new('RGB', (100, 50)).save(root / 'images' / 'train' / 'a.png')
    (root / 'labels' / 'train' / 'a.txt').write_text(label)
    (root / 'data.yaml').write_text(yaml.safe_dump(dict(names=['cat', 'dog'], train='images/train') | settings))
    return root


def annotations(root) -> list[dict]:
    return read_data(root).splits['train'].content['annotations']


def by_file(content) -> dict[str, list]:
    names = {image['id']: image['file_name'] for image in content['images']}
    classes = {category['id']: category['name'] for category in content['categories']}
    found: dict[str, list] = {name: [] for name in names.values()}
    for ann in content['annotations']:
        x, y, w, h = ann['bbox']
        found[names[ann['image_id']]].append((classes[ann['category_id']], (x, y, x + w, y + h)))
    return found


@pytest.mark.parametrize('layout', ['yolo', 'voc'])
def test_clean_sets_are_read_as_supervision_reads_them(tmp_path, layout):
    root = sets.make_yolo(tmp_path, ('train',)) if layout == 'yolo' else sets.make_voc(tmp_path, ('train',))
    if layout == 'yolo':
        loaded = load_yolo_annotations(
            str(root / 'images' / 'train'), str(root / 'labels' / 'train'), str(root / 'data.yaml')
        )
    else:
        loaded = load_pascal_voc_annotations(str(root / 'JPEGImages'), str(root / 'Annotations'))
    classes, _, detections = loaded
    found = by_file(read_data(root).splits['train'].content)
    assert len(found) == len(detections) == sets.SPLITS['train']
    for path, expected in detections.items():
        ours = found[path.rpartition('/')[2]]
        assert [name for name, _ in ours] == [classes[label] for label in expected.class_id]
        np.testing.assert_allclose([box for _, box in ours], expected.xyxy, atol=1e-3)


@pytest.mark.parametrize('names', [{0: 'cat', 3: 'dog'}, {'3': 'dog', '0': 'cat'}])
def test_ids_with_gaps_keep_their_names(tmp_path, names):
    root = yolo_set(tmp_path, '3 0.5 0.5 0.2 0.4\n', names=names)
    content = read_data(root).splits['train'].content
    assert content['categories'] == [dict(id=0, name='cat'), dict(id=3, name='dog')]
    assert content['annotations'] == [dict(id=1, image_id=1, category_id=3, bbox=[40, 15, 20, 20])]


@pytest.mark.parametrize('line', ['1 0.1 0.2 0.5 0.2 0.5 0.8', '1 0.1 0.2 0.5 0.2 0.5 0.8 0.99'])
def test_polygons_keep_their_points(tmp_path, line):
    (ann,) = annotations(yolo_set(tmp_path, line))
    assert ann['bbox'] == [10, 10, 40, 30]
    assert ann['segmentation'] == [[10, 10, 50, 10, 50, 40]]


def test_keypoints_are_left_out_with_a_note(tmp_path):
    root = yolo_set(tmp_path, '1 0.5 0.5 0.2 0.4 0.1 0.1 2 0.3 0.3 2\n', kpt_shape=[2, 3])
    assert annotations(root)[0]['bbox'] == [40, 15, 20, 20]
    assert '1 labels have keypoints, of which the boxes are read.' in read_data(root).notes


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('1 0.5 0.5', 'at least four numbers'),
        ('cat 0.5 0.5 0.1 0.1', 'numbers only'),
        ('0.5 0.5 0.5 0.1 0.1', 'a whole number first'),
        ('1 0.5 nan 0.1 0.1', 'finite numbers'),
    ],
)
def test_a_malformed_line_is_kept_as_a_problem_and_refused(tmp_path, line, message):
    root = yolo_set(tmp_path / 'set', f'0 0.5 0.5 0.2 0.4\n{line}\n')
    train = read_data(root).splits['train']
    (problem,) = train.problems
    assert problem.kind == 'malformed-label'
    assert 'line 2' in problem.message
    assert message in problem.message
    assert len(train.content['annotations']) == 1
    with pytest.raises(
        DataError, match=r'1 labels or files are unreadable(.|\n)*line 2(.|\n)*check-data .* --repair all --out OUT'
    ):
        prepare_data(root, tmp_path / 'out')


def test_wrong_boxes_and_unknown_classes_are_kept_as_found(tmp_path):
    first, second = annotations(yolo_set(tmp_path, '7 0.5 0.5 0.2 0.4\n0 0.9 0.9 -0.4 0.4\n'))
    assert first['category_id'] == 7
    assert second['bbox'] == [110, 35, -40, 20]


def test_a_damaged_image_does_not_stop_reading(tmp_path):
    root = yolo_set(tmp_path / 'set', '0 0.5 0.5 0.2 0.4\n')
    (root / 'images' / 'train' / 'a.png').write_bytes(b'damaged')
    content = read_data(root).splits['train'].content
    assert (content['images'][0]['width'], content['annotations'][0]['bbox']) == (None, None)
    with pytest.raises(DataError, match=r'1 of 1 images are unreadable; the first is .*a.png'):
        prepare_data(root, tmp_path / 'out')


def test_boxes_fit_the_image_as_it_is_shown(tmp_path):
    root = yolo_set(tmp_path, '0 0.5 0.5 0.2 0.4\n')
    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', (100, 50)).save(root / 'images' / 'train' / 'a.png', exif=exif)
    content = read_data(root).splits['train'].content
    assert (content['images'][0]['width'], content['images'][0]['height']) == (50, 100)
    assert content['annotations'][0]['bbox'] == [20, 30, 10, 40]


def test_images_without_labels_and_labels_without_images_are_counted(tmp_path):
    root = yolo_set(tmp_path, '0 0.5 0.5 0.2 0.4\n')
    Image.new('RGB', (10, 10)).save(root / 'images' / 'train' / 'b.png')
    (root / 'labels' / 'train' / 'lost.txt').write_text('0 0.5 0.5 0.2 0.4\n')
    source = read_data(root)
    assert 'train: 1 of 2 images have no label file; they count as without objects.' in source.notes
    (problem,) = source.splits['train'].problems
    assert (problem.kind, problem.path.name) == ('label-without-image', 'lost.txt')


@pytest.mark.parametrize('images', ['train', 'pictures/train'])
def test_labels_beside_images_and_in_sibling_folders_are_found(tmp_path, images):
    (tmp_path / images).mkdir(parents=True)
    labels = tmp_path / ('train' if images == 'train' else 'pictures/labels/train')
    labels.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (100, 50)).save(tmp_path / images / 'a.png')
    (labels / 'a.txt').write_text('1 0.5 0.5 0.2 0.4')
    (tmp_path / 'data.yaml').write_text(yaml.safe_dump(dict(names=['cat', 'dog'], train=images)))
    assert annotations(tmp_path)[0]['bbox'] == [40, 15, 20, 20]


def test_paths_of_another_computer_and_lists_of_images_are_resolved(tmp_path):
    root = yolo_set(tmp_path, '0 0.5 0.5 0.2 0.4\n', path='/home/somebody/datasets/pets')
    assert len(annotations(root)) == 1
    (root / 'train.txt').write_text('./images/train/a.png\n')
    (root / 'data.yaml').write_text(yaml.safe_dump(dict(names=['cat', 'dog'], train='train.txt', val='gone')))
    source = read_data(root)
    assert len(source.splits['train'].content['annotations']) == 1
    assert 'data.yaml names gone for val, which does not exist: there is no val.' in source.notes


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(nc=3), 'nc is 3, but names has 2 classes'),
        (dict(names='cat'), 'names must be a list of class names'),
        (dict(names=['cat', True]), 'write names such as yes or no in quotes'),
        (dict(kpt_shape=[17]), 'kpt_shape must be'),
    ],
)
def test_contradictions_of_the_yaml_file_are_errors(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        read_data(yolo_set(tmp_path, '0 0.5 0.5 0.2 0.4\n', **settings))


def test_missing_training_images_and_labels_are_errors(tmp_path):
    root = yolo_set(tmp_path, '0 0.5 0.5 0.2 0.4\n')
    (root / 'labels' / 'train' / 'a.txt').unlink()
    with pytest.raises(DataError, match=r'none of the 1 images of train has a label file; searched .*labels'):
        read_data(root)
    (root / 'data.yaml').write_text(yaml.safe_dump(dict(names=['cat'], train='elsewhere')))
    with pytest.raises(MissingFileError, match='names elsewhere for train, which does not exist'):
        read_data(root)


def voc_file(root, objects: str, size: str = '<size><width>100</width><height>50</height></size>') -> None:
    (root / 'train').mkdir(exist_ok=True)
    Image.new('RGB', (100, 50)).save(root / 'train' / 'a.png')
    (root / 'train' / 'a.xml').write_text(f'<annotation><filename>a.png</filename>{size}{objects}</annotation>')


def voc_object(corners: tuple, more: str = '') -> str:
    names = ('xmin', 'ymin', 'xmax', 'ymax')
    box = ''.join(f'<{name}>{value}</{name}>' for name, value in zip(names, corners, strict=True))
    return f'<object><name>cat</name>{more}<bndbox>{box}</bndbox></object>'


def test_voc_keeps_flags_polygons_and_reversed_corners(tmp_path):
    polygon = '<polygon><x1>11</x1><y1>6</y1><x2>21</x2><y2>6</y2><x3>21</x3><y3>16</y3></polygon>'
    voc_file(tmp_path, voc_object((11, 6, 21, 16), f'<difficult>1</difficult>{polygon}') + voc_object((30, 6, 21, 16)))
    source = read_data(tmp_path)
    first, second = source.splits['train'].content['annotations']
    assert (first['bbox'], first['difficult']) == ([10, 5, 11, 11], 1)
    assert first['segmentation'] == [[10, 5, 20, 5, 20, 15]]
    assert second['bbox'] == [29, 5, -8, 11]
    assert '1 objects are marked difficult; they are used like the others, and the mark is kept.' in source.notes


def test_voc_coordinates_that_count_from_zero_are_recognised(tmp_path):
    voc_file(tmp_path, voc_object((0, 6, 20, 16)) + voc_object((30, 6, 40, 16)))
    source = read_data(tmp_path)
    assert [ann['bbox'] for ann in source.splits['train'].content['annotations']] == [[0, 6, 20, 10], [30, 6, 10, 10]]
    assert 'Coordinates count from 0, as xmin or ymin is 0 in some files.' in source.notes


def test_broken_voc_files_are_problems(tmp_path):
    voc_file(tmp_path, '<object><name>cat</name></object>', size='')
    (tmp_path / 'train' / 'b.xml').write_text('<annotation>')
    train = read_data(tmp_path).splits['train']
    assert [problem.kind for problem in train.problems] == ['malformed-label', 'unreadable-label-file']
    assert train.content['images'][0]['width'] == 100
    assert train.content['images'][1]['file_name'] == 'b.jpg'


def test_images_in_no_list_are_counted(tmp_path):
    root = sets.make_voc(tmp_path)
    (root / 'ImageSets' / 'Main' / 'val.txt').write_text('val_00\n')
    assert any(note.startswith('2 of 9 images are in no list of') for note in read_data(root).notes)
    (root / 'ImageSets' / 'Main' / 'val.txt').write_text('val_77\n')
    with pytest.raises(DataError, match="the first is 'val_77'"):
        read_data(root)
