"""Classes that contradict each other are an error, or a warning where the user may mean it, through the tools."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from class_layouts import (
    CLASSIFIER,
    DETECTOR,
    changed,
    coco,
    config_file,
    names_in_results,
    tool,
    write_detection,
    write_folders,
    wrong,
)
from commands import error_of

from mmdefocus.models.checkpoint import read_checkpoint

RGB = ('red', 'green', 'blue')
FILE = [(3, 'red'), (17, 'green'), (90, 'blue')]
SWAPPED = ('green', 'red', 'blue')
OTHER = ('crimson', 'lime', 'navy')


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Images of three colours in COCO format and in folders, and a detector and a classifier trained on them."""
    root = tmp_path_factory.mktemp('contradictions')
    write_detection(root, FILE, FILE, RGB)
    write_folders(root)
    for name, base in (('detector', DETECTOR), ('classifier', CLASSIFIER)):
        tool(root, 'train.py', config_file(root / f'{name}.py', base), '--work-dir', name)
    return root


@pytest.fixture
def detector(root) -> Path:
    return root / 'detector' / 'epoch_1.pth'


@pytest.fixture
def classifier(root) -> Path:
    return root / 'classifier' / 'epoch_1.pth'


@pytest.fixture
def refused(root, capsys) -> Callable[..., str]:
    """Run a tool in ``root``, expect the exit status 2, and return the message."""
    return partial(error_of, capsys, tool, root)


def renamed(root: Path) -> None:
    """A copy of the annotations with other names for the same boxes."""
    for split in ('train', 'val'):
        text = (root / f'{split}.json').read_text()
        for name, other in zip(RGB, OTHER, strict=True):
            text = text.replace(f'"name": "{name}"', f'"name": "{other}"')
        (root / f'renamed_{split}.json').write_text(text)


# Fine-tuning


def test_a_head_of_other_classes_is_reused_with_a_warning(root, detector, capsys):
    renamed(root)
    loaders = {f'{split}_dataloader': {'dataset': {'ann_file': f'renamed_{split}.json'}} for split in ('train', 'val')}
    config = config_file(root / 'tuned.py', DETECTOR, OTHER, val_evaluator={'ann_file': 'renamed_val.json'}, **loaders)
    tool(root, 'train.py', config, '--work-dir', 'tuned', '--cfg-options', f'load_from={detector}')
    assert re.search(
        r'WARNING - \S+/detector/epoch_1\.pth and the training set have different classes: .* has 3 classes \(red, '
        r'green, blue\), the training set has 3 classes \(crimson, lime, navy\); the first that differs is number 0\. '
        r'As their number is the same, the head starts with weights for the classes of the checkpoint',
        capsys.readouterr().out,
    )
    meta = read_checkpoint(root / 'tuned' / 'epoch_1.pth')['meta']['dataset_meta']
    assert (tuple(meta['classes']), meta['category_ids']) == (OTHER, [3, 17, 90])


@pytest.mark.parametrize('family', ['detector', 'classifier'])
def test_a_head_of_the_same_classes_in_another_order_is_refused(root, refused, family):
    given = {'metainfo': {'classes': SWAPPED}} if family == 'detector' else {'classes': SWAPPED}
    loaders = {f'{split}_dataloader': {'dataset': given} for split in ('train', 'val', 'test')}
    config = config_file(root / 'swapped.py', root / f'{family}.py', **loaders)
    checkpoint = root / family / 'epoch_1.pth'
    message = refused('train.py', config, '--work-dir', 'swapped', '--cfg-options', f'load_from={checkpoint}')
    assert 'and the training set have the same classes in different orders' in message
    assert 'the training set has 3 classes (green, red, blue); the first that differs is number 0' in message
    assert (
        'start with the weights of other classes: give the data sets the classes in the order of the check' in message
    )
    assert not list((root / 'swapped').glob('*.pth'))


def test_a_head_of_unnamed_classes_is_reused_with_a_warning(root, detector, capsys):
    unnamed = changed(detector, 'unnamed_start', classes=None)
    tool(root, 'train.py', 'detector.py', '--work-dir', 'start', '--cfg-options', f'load_from={unnamed}')
    assert 'names no classes: its head is used for those of the training set (red, green, blue)' in (
        capsys.readouterr().out
    )


def test_a_replaced_head_may_have_any_classes(root, detector, capsys):
    data = {'ann_file': 'two.json', 'allow_missing_categories': True}
    (root / 'two.json').write_text(json.dumps(coco(FILE, ('blue', 'red'))))
    loaders = {f'{split}_dataloader': {'dataset': dict(data)} for split in ('train', 'val', 'test')}
    evaluators = {f'{split}_evaluator': {'ann_file': 'two.json'} for split in ('val', 'test')}
    config = config_file(root / 'two.py', DETECTOR, ('blue', 'red'), **loaders, **evaluators)
    tool(root, 'train.py', config, '--work-dir', 'two', '--cfg-options', f'load_from={detector}')
    printed = capsys.readouterr().out
    assert 'Initial values remain in bbox_head (1 of 1 tensors)' in printed
    assert 'the head starts with' not in printed
    words = ('--cfg-options', 'test_evaluator.outfile_prefix=two', 'test_evaluator.format_only=True')
    tool(root, 'test.py', config, 'two/epoch_1.pth', *words)
    assert wrong(names_in_results(root / 'two.bbox.json', root / 'two.json'), 2) == []


# Resuming


@pytest.mark.parametrize(
    ('classes', 'ids', 'expected'),
    [
        (SWAPPED, (17, 3, 90), 'have the same classes in different orders: the checkpoint has 3 classes (green, red, '),
        (RGB, (3, 16, 90), 'the checkpoint and the training set have different category ids: green is 16 and 17'),
    ],
)
def test_a_resumed_training_of_other_classes_is_refused(root, refused, detector, classes, ids, expected):
    file = changed(detector, 'other_resumed', classes=classes, category_ids=list(ids))
    message = refused('train.py', 'detector.py', '--work-dir', 'other', '--resume', file)
    assert 'comes from a training with different settings' in message
    assert expected in message


def test_a_checkpoint_without_ids_can_be_resumed(root, detector):
    file = changed(detector, 'without_ids', category_ids=None)
    words = ('--work-dir', 'resumed', '--resume', file, '--cfg-options', 'train_cfg.max_epochs=2')
    tool(root, 'train.py', 'detector.py', *words)
    assert read_checkpoint(root / 'resumed' / 'epoch_2.pth')['meta']['dataset_meta']['category_ids'] == [3, 17, 90]


# Testing


def test_a_test_of_other_classes_is_refused(root, refused, detector):
    config = config_file(root / 'swapped.py', DETECTOR, SWAPPED)
    message = refused('test.py', config, detector)
    assert 'the checkpoint and the data set have the same classes in different orders' in message
    assert 'metainfo=dict(classes=...)' in message


def test_other_ids_of_the_same_classes_are_those_of_the_tested_file(root, detector, capsys):
    other = [(1, 'blue'), (2, 'red'), (3, 'green')]
    (root / 'other_ids.json').write_text(json.dumps(coco(other, RGB)))
    settings = ('test_dataloader.dataset.ann_file', 'test_evaluator.ann_file')
    words = [f'{key}=other_ids.json' for key in settings]
    tool(root, 'test.py', 'detector.py', detector, '--cfg-options', *words, 'test_evaluator.outfile_prefix=other_ids')
    assert (
        'the checkpoint and the data set have different category ids: red is 3 and 2. The results have the ids of the '
        'data set'
    ) in capsys.readouterr().out
    assert wrong(names_in_results(root / 'other_ids.bbox.json', root / 'other_ids.json'), 3) == []


def unlabelled(root: Path) -> tuple[str, ...]:
    """Options for a file that lists images and nothing else."""
    images = json.loads((root / 'val.json').read_text())['images']
    (root / 'images.json').write_text(json.dumps({'images': images}))
    files = [f'{key}=images.json' for key in ('test_dataloader.dataset.ann_file', 'test_evaluator.ann_file')]
    return ('--cfg-options', *files, 'test_evaluator.outfile_prefix=unlabelled', 'test_evaluator.format_only=True')


def test_images_without_categories_get_the_ids_of_the_checkpoint(root, detector):
    tool(root, 'test.py', 'detector.py', detector, '--out', 'unlabelled.pkl', *unlabelled(root))
    assert wrong(names_in_results(root / 'unlabelled.bbox.json', root / 'val.json'), 3) == []


def test_ids_that_nobody_knows_are_an_error(root, refused, detector):
    file = changed(detector, 'no_ids', category_ids=None)
    message = refused('test.py', 'detector.py', file, *unlabelled(root))
    assert "'images.json' lists no categories, and the checkpoint does not know the ids of its classes" in message
    assert 'give the test data set metainfo=dict(classes=..., category_ids=[...]), an id for every class' in message


@pytest.mark.parametrize(
    ('ids', 'expected'),
    [
        ([3, 16, 90], 'the ids of the categories are not those of metainfo.category_ids: green (17 in the file, 16 in'),
        ([3, 3, 90], 'must have a distinct id for each of the 3 classes, in their order, got [3, 3, 90]'),
        ([3, 17], 'must have a distinct id for each of the 3 classes, in their order, got [3, 17]'),
    ],
)
def test_ids_of_the_config_that_are_not_those_of_the_file(root, refused, ids, expected):
    dataset = {'metainfo': {'classes': RGB, 'category_ids': ids}}
    config = config_file(root / 'ids.py', DETECTOR, train_dataloader={'dataset': dataset})
    assert expected in refused('train.py', config, '--work-dir', 'ids')


def test_the_metric_without_an_annotation_file_writes_the_original_ids(root, detector):
    config = root / 'converted.py'
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'instances')
    pipeline = f"[*_base_.pipeline[:-1], dict(type='PackDetInputs', meta_keys={keys})]"
    config.write_text(f'_base_ = {str(DETECTOR)!r}\ntest_dataloader = dict(dataset=dict(pipeline={pipeline}))\n')
    words = ('--cfg-options', 'test_evaluator.ann_file=None', 'test_evaluator.outfile_prefix=converted')
    tool(root, 'test.py', config, detector, *words)
    assert wrong(names_in_results(root / 'converted.bbox.json', root / 'val.json'), 3) == []
    truth = json.loads((root / 'converted.gt.json').read_text())
    assert [(one['id'], one['name']) for one in truth['categories']] == FILE


# MMDetection's own classes


def test_stock_data_sets_that_would_mix_up_names(root, refused):
    dataset = {'type': 'CocoDataset', 'metainfo': {'classes': SWAPPED}}
    loaders = {f'{split}_dataloader': {'dataset': dict(dataset)} for split in ('train', 'val', 'test')}
    config = config_file(root / 'stock.py', DETECTOR, **loaders)
    message = refused('train.py', config, '--work-dir', 'stock')
    assert (
        "labels the classes in the order of 'train.json', red, green, blue, but the config names them green" in message
    )
    assert "use type='DefocusCocoDataset', which finds the categories by name" in message


def test_the_stock_metric_that_would_mix_up_the_table_of_classes(root, refused, detector):
    (root / 'descending.json').write_text(json.dumps(coco([(3, 'red'), (2, 'green'), (1, 'blue')], RGB)))
    words = [f'{key}=descending.json' for key in ('test_dataloader.dataset.ann_file', 'test_evaluator.ann_file')]
    words += ['test_evaluator.type=CocoMetric']
    message = refused('test.py', 'detector.py', detector, '--cfg-options', *words)
    assert 'does not list its categories by ascending id, and the table of CocoMetric with classwise=True' in message
    assert "set test_evaluator.type='DefocusCocoMetric'" in message


def test_stock_folders_that_would_mix_up_names(root, refused):
    dataset = {'type': 'CustomDataset', 'classes': RGB}
    loaders = {f'{split}_dataloader': {'dataset': dict(dataset)} for split in ('train', 'val')}
    config = config_file(root / 'stock_folders.py', CLASSIFIER, **loaders)
    message = refused('train.py', config, '--work-dir', 'stock_folders')
    assert (
        "labels the folders of 'train' in the order blue, green, red, but its classes are red, green, blue" in message
    )
    assert "use type='DefocusImageFolder'" in message


# Two data sets


def two_files(root: Path, name: str, second: tuple[str, ...], kind: str = 'ConcatDataset') -> Path:
    """A config that trains on two files: red alone, and green and blue with other ids in another order."""
    (root / 'first.json').write_text(json.dumps(coco(FILE, ('red',))))
    other = [(5, 'blue'), (4, 'red'), (8, 'green')]
    (root / 'second.json').write_text(json.dumps(coco(other, ('green', 'blue'), first_image=20)))
    common = {'type': 'DefocusCocoDataset', 'data_prefix': {'img': 'images/'}}
    config = config_file(root / name, DETECTOR)
    parts = [
        f'dict(ann_file={file!r}, metainfo=dict(classes={classes!r}), pipeline=_base_.pipeline, **{common!r})'
        for file, classes in (('first.json', RGB), ('second.json', second))
    ]
    dataset = f'dict(_delete_=True, type={kind!r}, datasets=[{", ".join(parts)}])'
    config.write_text(f'{config.read_text()}\ntrain_dataloader = dict(dataset={dataset})\n')
    return config


def test_two_data_sets_of_the_same_classes_with_other_ids(root):
    tool(root, 'train.py', two_files(root, 'joined.py', RGB), '--work-dir', 'joined')
    meta = read_checkpoint(root / 'joined' / 'epoch_1.pth')['meta']['dataset_meta']
    assert tuple(meta['classes']) == RGB
    assert 'category_ids' not in meta, 'the two files have different ones'
    words = ('--cfg-options', 'test_evaluator.outfile_prefix=joined')
    tool(root, 'test.py', 'detector.py', 'joined/epoch_1.pth', *words)
    assert wrong(names_in_results(root / 'joined.bbox.json', root / 'val.json'), 3) == []


@pytest.mark.parametrize('kind', ['ConcatDataset', 'mmdet.ConcatDataset', 'DefocusConcatDataset'])
def test_two_data_sets_of_different_orders(root, refused, kind):
    message = refused('train.py', two_files(root, 'mixed.py', SWAPPED, kind), '--work-dir', 'mixed')
    assert 'the parts 0 and 1 of a ConcatDataset have the same classes in different orders' in message
    assert "red, green, blue in 'first.json'; green, red, blue in 'second.json'" in message
    assert 'Give both the same classes in the same order' in message
