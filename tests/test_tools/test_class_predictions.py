"""Names and colours of predictions where the checkpoint has none, or others than the config."""

import re
from pathlib import Path

import pytest
from class_layouts import DETECTOR, changed, config_file, tool, write_detection, wrong
from commands import error_of

from mmdefocus.apis.inference import DetectionInferencer

RGB, SWAPPED, OTHER = ('red', 'green', 'blue'), ('green', 'red', 'blue'), ('crimson', 'lime', 'navy')
FILE = [(3, 'red'), (17, 'green'), (90, 'blue')]


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Images of three colours in COCO format, and a detector trained on them."""
    root = tmp_path_factory.mktemp('predictions')
    write_detection(root, FILE, FILE, RGB)
    tool(root, 'train.py', config_file(root / 'detector.py', DETECTOR), '--work-dir', 'detector')
    return root


@pytest.fixture
def detector(root) -> Path:
    return root / 'detector' / 'epoch_1.pth'


def test_predictions_of_a_checkpoint_without_names_have_those_of_the_config(root, detector):
    unnamed = changed(detector, 'unnamed', classes=None, category_ids=None)
    inferencer = DetectionInferencer(str(root / 'detector.py'), str(unnamed), device='cpu', show_progress=False)
    for name in RGB:
        (found,) = inferencer(str(root / 'images' / f'{name}.png'))['predictions']
        assert found['label_names'] == [name]
        assert 'category_ids' not in found


@pytest.mark.parametrize(
    ('meta', 'config_classes', 'expected'),
    [
        (
            dict(classes=None),
            ('red', 'green'),
            'the data set of the config names 2 classes, but the model predicts 3 (model.bbox_head.num_classes), and '
            'names would be wrong; the checkpoint names none: give test_dataloader.dataset those of its training',
        ),
        (dict(classes=('red', 'green')), ('red', 'green'), 'the checkpoint names 2 classes, but the model predicts 3'),
        (dict(category_ids=[3, 17]), RGB, 'the checkpoint has 2 category_ids for 3 classes'),
        ({}, SWAPPED, 'the checkpoint and the data set of the config have the same classes in different orders'),
        ({}, OTHER, 'the checkpoint and the data set of the config have different classes'),
    ],
)
def test_names_that_contradict_each_other_in_a_prediction(root, detector, capsys, meta, config_classes, expected):
    dataset = {'metainfo': {'classes': config_classes}}
    config = config_file(root / 'named.py', DETECTOR, test_dataloader={'dataset': dataset})
    file = changed(detector, 'named', **meta)
    words = ('images', config, '--checkpoint', file, '--device', 'cpu')
    assert expected in error_of(capsys, tool, root, 'image_demo.py', *words)
    if not meta:
        tool(root, 'image_demo.py', *words, '--no-strict')
        printed = capsys.readouterr()
        assert expected in printed.out + printed.err
        pairs = re.findall(r'images/(.*)\.png\n  \d\.\d+  \d+  (.*?)  ', printed.out)
        assert wrong(pairs, 3) == [], 'the names are those of the checkpoint'


def test_colours_are_those_of_the_checkpoint(root, detector):
    palette = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    file = changed(detector, 'painted', palette=palette)
    assert (
        DetectionInferencer(str(root / 'detector.py'), str(file), device='cpu').visualizer.dataset_meta['palette']
        == palette
    )
