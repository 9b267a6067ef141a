"""Names and ids of classes from the annotation file to results and pictures: no name differs from the colour."""

import json
import re

import pytest
from class_layouts import (
    COLOURS,
    DETECTOR,
    config_file,
    drawn_names,
    names_in_pickle,
    names_in_results,
    tool,
    write_detection,
    wrong,
)
from colour_models import ColourHead
from mmdet.datasets import CocoDataset
from mmengine.config import Config

from mmdefocus.apis.class_names import find_dataset_meta
from mmdefocus.apis.inference import DetectionInferencer
from mmdefocus.models.checkpoint import read_checkpoint

RGB = ('red', 'green', 'blue')
COCO = CocoDataset.METAINFO['classes']
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
COCO_80 = list(zip([number for number in range(1, 91) if number not in UNUSED], COCO, strict=True))
COCO_91 = sorted([*COCO_80, *((number, f'unused {number}') for number in UNUSED)])
IGNORE = {'allow_missing_categories': True}

# Categories of the training and of the validation file as (id, name), the classes, and settings of the data sets.
LAYOUTS = {
    'ids from 0': (list(enumerate(RGB)), None, RGB, {}),
    'ids from 1': (list(enumerate(RGB, 1)), None, RGB, {}),
    'ids with gaps': ([(3, 'red'), (17, 'green'), (90, 'blue')], None, RGB, {}),
    # The class without boxes shows whose row is whose in the table of the metric.
    'ids in descending order': ([(9, 'white'), (7, 'red'), (5, 'green'), (3, 'blue')], None, ('white', *RGB), {}),
    'ids that are strings': ([('b', 'red'), ('c', 'green'), ('a', 'blue')], None, RGB, {}),
    'one class': ([(7, 'green')], None, ('green',), {}),
    'categories without boxes': ([(1, 'white'), (2, 'red'), (5, 'green'), (9, 'blue')], None, ('white', *RGB), {}),
    'categories that are ignored': ([(1, 'white'), (2, 'red'), (5, 'green'), (9, 'blue')], None, RGB, IGNORE),
    "COCO's 80": (COCO_80, None, COCO, {}),
    "COCO's 80 of 91": (COCO_91, None, COCO, IGNORE),
    'classes in another order than the file': (list(enumerate(RGB, 1)), None, ('blue', 'red', 'green'), {}),
    'validation file in another order': (list(enumerate(RGB)), [(2, 'blue'), (0, 'red'), (1, 'green')], RGB, {}),
    'validation file with other ids': (list(enumerate(RGB)), [(4, 'blue'), (6, 'green'), (9, 'red')], RGB, {}),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_no_name_is_wrong(layout, tmp_path, capsys):
    train, val, classes, settings = LAYOUTS[layout]
    drawn = [name for name in classes if name in COLOURS and name != 'white']
    write_detection(tmp_path, train, val or train, drawn)
    loaders = {f'{split}_dataloader': {'dataset': dict(settings)} for split in ('train', 'val', 'test')}
    config = config_file(tmp_path / 'config.py', DETECTOR, classes, **loaders)

    tool(tmp_path, 'train.py', config, '--work-dir', 'work')
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    ids = {name: number for number, name in train}
    meta = read_checkpoint(checkpoint)['meta']['dataset_meta']
    assert tuple(meta['classes']) == tuple(classes)
    assert meta['category_ids'] == [ids[name] for name in classes]

    capsys.readouterr()
    words = (
        '--out',
        'out.pkl',
        '--show-dir',
        'pictures',
        '--cfg-options',
        'test_evaluator.outfile_prefix=results/boxes',
    )
    with drawn_names() as in_pictures:
        tool(tmp_path, 'test.py', config, checkpoint, *words)
    annotations = tmp_path / 'val.json'
    assert wrong(names_in_results(tmp_path / 'results' / 'boxes.bbox.json', annotations), len(drawn)) == []
    assert wrong(names_in_pickle(tmp_path / 'out.pkl', annotations), 2 * len(drawn)) == []
    assert wrong(in_pictures, 2 * len(drawn)) == [], 'true and predicted names'
    table = dict(re.findall(r'^\| (\S.*?) +\| +(\S+) \|$', capsys.readouterr().out, re.MULTILINE))
    assert {name: table[name] for name in classes} == {name: '1.000' if name in drawn else '-' for name in classes}

    tool(tmp_path, 'image_demo.py', 'images', config, '--checkpoint', checkpoint, '--device', 'cpu')
    printed = re.findall(r'images/(.*)\.png\n  \d\.\d+  \d+  (.*?)  ', capsys.readouterr().out)
    assert wrong(printed, len(drawn)) == []
    detector = DetectionInferencer(str(config), str(checkpoint), device='cpu', show_progress=False)
    with drawn_names() as in_pictures:
        detector(str(tmp_path / 'images'), out_dir=str(tmp_path / 'found'), no_save_pred=False)
    assert wrong(in_pictures, len(drawn)) == []
    for name in drawn:
        found = json.loads((tmp_path / 'found' / 'preds' / f'{name}.json').read_text())
        assert (found['label_names'], found['category_ids']) == ([name], [ids[name]])


@pytest.mark.parametrize('meta', [{'CLASSES': COCO}, {'dataset_meta': {'classes': list(COCO)}}, {}])
def test_published_detectors_have_the_ids_of_coco(meta):
    """Their files have names at most; the config's data set is COCO's."""
    dataset = {'type': 'DefocusCocoDataset'}
    cfg = Config({'default_scope': 'mmdet', 'test_dataloader': {'dataset': dataset}})
    found = find_dataset_meta(ColourHead(80), {'meta': meta}, cfg, strict=True)
    assert list(zip(found['category_ids'], found['classes'], strict=True)) == COCO_80
