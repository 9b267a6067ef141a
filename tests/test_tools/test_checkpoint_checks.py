"""Checkpoints that do not match the config or the data, through the tools."""

import itertools
import os
import re
import runpy
import shutil
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, error_of, run
from PIL import Image

from mmdefocus.models.checkpoint import read_checkpoint

HERE = Path(__file__).parent
DETECTOR, CLASSIFIER, FOLDERS = (HERE / f'toy_{name}.py' for name in ('detector', 'classifier', 'image_folder'))
CLASSES = ('bright', 'dark', 'red')
numbers = itertools.count()


@pytest.fixture(scope='module')
def root(tmp_path_factory, digits_coco) -> Path:
    """Digits in ``data/digits``, and in ``data/folders`` two images of each of three classes."""
    root = tmp_path_factory.mktemp('checks')
    (root / 'data').mkdir()
    (root / 'data' / 'digits').symlink_to(digits_coco)
    for value, name in zip((250, 20, 120), CLASSES, strict=True):
        folder = root / 'data' / 'folders' / name
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((40, 40, 3), value + number, np.uint8)).save(folder / f'{number}.png')
    for split in ('train', 'val'):
        (root / 'data' / split).symlink_to('folders')
    return root


@pytest.fixture(scope='module')
def call(root) -> Callable[..., None]:
    """Run a tool in ``root``."""

    def call(name: str, config: Path, *words: str | Path) -> None:
        arguments = [*words] if '--cfg-options' in words else [*words, '--cfg-options']
        # MMEngine keeps state under this name.
        arguments.append(f'experiment_name=checks_{next(numbers)}')
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setattr(sys, 'argv', [name, str(config), *map(str, arguments)])
            runpy.run_path(str(TOOLS / name), run_name='__main__')

    return call


@pytest.fixture
def refused(call, capsys) -> Callable[..., str]:
    """Run a tool that ends with status 2, and return the message."""
    return partial(error_of, capsys, call)


@pytest.fixture(scope='module')
def classifier(call, root) -> Path:
    call('train.py', CLASSIFIER, '--work-dir', 'classifier')
    return root / 'classifier' / 'epoch_1.pth'


@pytest.fixture(scope='module')
def mamba(call, root) -> Path:
    call('train.py', FOLDERS, '--work-dir', 'mamba', '--cfg-options', f'data_root={root / "data"}')
    return root / 'mamba' / 'epoch_2.pth'


@pytest.fixture(scope='module')
def detector(call, root) -> Path:
    call('train.py', DETECTOR, '--work-dir', 'detector')
    return root / 'detector' / 'epoch_2.pth'


def changed(path: Path, change: Callable[[dict], object]) -> Path:
    """A copy of a checkpoint with a change."""
    checkpoint = read_checkpoint(path)
    change(checkpoint)
    copy = path.with_name(f'changed_{next(numbers)}.pth_')
    torch.save(checkpoint, copy)
    return copy


def test_a_head_for_other_classes(refused, classifier):
    options = ('--cfg-options', 'model.head.num_classes=5')
    message = refused('test.py', CLASSIFIER, classifier, *options)
    assert f'{classifier} does not fit the model of the config: 2 of a different shape (head.fc.' in message
    assert re.search(r'head\.fc\.weight: \S*3, 32\S* in the file, \S*5, 32\S* in the model', message)
    assert 'give --no-strict' in message


@pytest.mark.parametrize('more', [(), ('--tta',)])
def test_a_detector_for_other_classes(refused, detector, more):
    options = ('--cfg-options', 'model.bbox_head.num_classes=2')
    message = refused('test.py', DETECTOR, detector, *more, *options)
    assert re.search(r'bbox_head\.retina_cls\.weight: \S*10, 8, 3, 3\S* in the file, \S*2, 8, 3, 3\S* in', message)


def test_missing_and_leftover_tensors(refused, call, classifier, capsys):
    def change(checkpoint):
        checkpoint['state_dict']['head.fc.scale'] = checkpoint['state_dict'].pop('head.fc.bias')

    file = changed(classifier, change)
    assert '1 missing (head.fc.bias); 1 unexpected (head.fc.scale)' in refused('test.py', CLASSIFIER, file)
    call('test.py', CLASSIFIER, file, '--no-strict')
    logged = capsys.readouterr()
    assert re.search(r'WARNING.* does not fit the model .*1 missing \(head\.fc\.bias\)', logged.out + logged.err)
    assert 'accuracy/top1' in logged.out


def test_a_classifier_given_to_a_detector(refused, classifier):
    assert re.search(r'\d+ missing \(.* unexpected \(.*head\.fc\.', refused('test.py', DETECTOR, classifier))


def retnet(root: Path) -> Path:
    """A RetNet of the sizes of the Mamba network."""
    config = root / 'retnet.py'
    arch = dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2, value_dims=32, ffn_dims=32)
    model = dict(backbone=dict(type='DefocusRetNet', arch=arch))
    config.write_text(f'_base_ = {str(FOLDERS)!r}\nmodel = {model!r}\n')
    return config


def test_a_network_of_another_kind(refused, mamba, root):
    data = ('--cfg-options', f'data_root={root / "data"}')
    message = refused('test.py', retnet(root), mamba, *data)
    assert re.search(r'missing \(backbone\.layers\.0\..* unexpected \(backbone\.layers\.0\.', message)
    message = refused('train.py', retnet(root), '--work-dir', 'foreign', *data, f'load_from={mamba}')
    assert f'no complete part of {mamba} fits the model of the config' in message
    assert not list((root / 'foreign').glob('*.pth')), 'nothing was trained'


def test_a_file_of_which_nothing_fits(refused, classifier):
    weights = changed(classifier, lambda checkpoint: checkpoint.update(state_dict={'weight': torch.zeros(1)}))
    message = refused('train.py', CLASSIFIER, '--work-dir', 'foreign', '--cfg-options', f'load_from={weights}')
    assert f'no complete part of {weights} fits the model of the config' in message


def test_training_may_start_from_a_part_of_a_checkpoint(call, root, classifier, detector, capsys):
    """New heads, and a detector's neck and head over a backbone that the checkpoint does not have."""

    def of_two_classes(checkpoint):
        for name in ('head.fc.weight', 'head.fc.bias'):
            checkpoint['state_dict'][name] = checkpoint['state_dict'][name][:2]

    options = ('--cfg-options', f'load_from={changed(classifier, of_two_classes)}')
    call('train.py', CLASSIFIER, '--work-dir', 'tuned', *options)
    assert 'Initial values remain in head (2 of 2 tensors)' in capsys.readouterr().out

    def change(checkpoint):
        weights = checkpoint['state_dict'].items()
        checkpoint['state_dict'] = {key.replace('backbone.', 'backbone.other.'): value for key, value in weights}

    options = ('--cfg-options', f'load_from={changed(detector, change)}', 'optim_wrapper.optimizer.lr=0.0')
    call('train.py', DETECTOR, '--work-dir', 'warm', *options)
    assert re.search(
        r'fits in part: .*Initial values remain in backbone \((\d+) of \1 tensors\)\n', capsys.readouterr().out
    )
    weights, given = (read_checkpoint(path)['state_dict'] for path in (root / 'warm' / 'epoch_1.pth', detector))
    assert torch.equal(weights['bbox_head.retina_cls.weight'], given['bbox_head.retina_cls.weight'])


def test_classes_in_another_order(refused, call, root, detector, capsys):
    config = root / 'reordered.py'
    classes = ['1', '0', *map(str, range(2, 10))]
    dataset = dict(metainfo=dict(classes=classes))
    config.write_text(f'_base_ = {str(DETECTOR)!r}\ntest_dataloader = dict(dataset={dataset!r})\n')
    message = refused('test.py', config, detector, '--no-strict')
    assert (
        'the checkpoint and the data set have the same classes in different orders: the checkpoint has 10 classes '
        '(0, 1, 2, 3, ...), the data set has 10 classes (1, 0, 2, 3, ...); the first that differs is number 0'
    ) in message
    assert 'if the names mean the same, give --ignore-class-names' in message
    call('test.py', config, detector, '--ignore-class-names')
    assert 'COCO box AP' in capsys.readouterr().out


def old_names(checkpoint: dict) -> None:
    checkpoint['meta'] = dict(CLASSES=checkpoint['meta']['dataset_meta']['classes'])


@pytest.mark.parametrize('change', [dict, old_names])
def test_folders_of_other_names(refused, call, root, classifier, change):
    shutil.copytree(root / 'data' / 'folders', root / 'other', dirs_exist_ok=True)
    shutil.rmtree(root / 'other' / 'crimson', ignore_errors=True)
    (root / 'other' / 'red').rename(root / 'other' / 'crimson')
    options = ('--cfg-options', 'test_dataloader.dataset.data_prefix=other')
    message = refused('test.py', CLASSIFIER, changed(classifier, change), *options)
    assert 'has 3 classes (bright, dark, red), the data set has 3 classes (bright, crimson, dark)' in message
    assert 'the first that differs is number 1' in message


def test_checkpoints_that_name_no_classes_are_tested(call, classifier, capsys):
    for change in (
        lambda checkpoint: checkpoint.pop('meta'),
        lambda checkpoint: checkpoint['meta'].pop('dataset_meta'),
    ):
        call('test.py', CLASSIFIER, changed(classifier, change))
        assert 'accuracy/top1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [
        (('x', 'red', 'bright', 'dark'), None),
        (('x', 'n3', 'n1', 'n2'), None),  # names of another kind cannot be compared
        (('x', 'red', 'dark', 'bright'), 'has 3 classes (dark, bright, red)'),
    ],
)
def test_a_head_that_chooses_among_its_classes(call, refused, root, classes, expected, capsys, mamba):
    """A checkpoint of four classes, of which the data set has three, by name."""

    def change(checkpoint):
        checkpoint['meta']['dataset_meta']['classes'] = classes
        for name in ('head.fc', 'head.aux_fc'):
            for kind in ('weight', 'bias'):
                value = checkpoint['state_dict'][f'{name}.{kind}']
                checkpoint['state_dict'][f'{name}.{kind}'] = torch.cat((value[:1], value))

    config = root / 'choosing.py'
    config.write_text(f'_base_ = {str(FOLDERS)!r}\nmodel = dict(head=dict(num_classes=4, predict_classes=[2, 3, 1]))\n')
    words = ('test.py', config, changed(mamba, change), '--cfg-options', f'data_root={root / "data"}')
    if expected is None:
        call(*words)
        assert 'accuracy/top1' in capsys.readouterr().out
    else:
        assert expected in refused(*words)


def test_a_validation_set_of_other_classes(refused, root):
    config = root / 'validation.py'
    dataset = dict(type='CocoDataset', metainfo=dict(classes=['1', '0', *map(str, range(2, 10))]))
    config.write_text(f'_base_ = {str(DETECTOR)!r}\nval_dataloader = dict(dataset={dataset!r})\n')
    message = refused('train.py', config, '--work-dir', 'validation')
    assert 'the training set and the validation set have the same classes in different orders' in message
    assert 'Give both data sets the same classes in the same order' in message


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ([1, 2], 'holds a list, expected a dict with a state_dict'),
        ({'state_dict': None}, 'has a state_dict of type NoneType, expected a dict of tensors'),
        ({'state_dict': {0: torch.ones(1)}}, 'has the key 0 of type int, expected names of tensors'),
    ],
)
def test_files_that_hold_no_weights(refused, root, content, expected):
    file = root / 'content.pth_'
    torch.save(content, file)
    assert f'{file} {expected}' in refused('test.py', CLASSIFIER, file)
    assert f'{file} {expected}' in refused('train.py', CLASSIFIER, '--cfg-options', f'load_from={file}')
    assert f'{file} {expected}' in refused('train.py', CLASSIFIER, '--resume', file)


def test_folders_and_files_in_place_of_each_other(refused, root, classifier):
    message = refused('train.py', HERE)
    assert f"'{HERE}' is a directory; name the config file in it" in message
    for work_dir in (classifier, classifier / 'deeper'):
        message = refused('train.py', CLASSIFIER, '--work-dir', work_dir)
        assert f"work directory '{work_dir}' cannot be made: '{classifier}' is a file" in message


def test_a_failing_step_of_the_pipeline_is_named(refused, call, root, monkeypatch):
    shutil.copytree(root / 'data' / 'folders', root / 'broken')
    (root / 'broken' / 'red' / '1.png').write_bytes(b'nothing')
    options = ('--cfg-options', 'train_dataloader.dataset.data_prefix=broken')
    message = refused('train.py', CLASSIFIER, '--work-dir', 'broken_run', *options)
    assert '(LoadImageFromFile) failed: AssertionError: failed to load image: broken/red/1.png' in message
    monkeypatch.setenv('MMDEFOCUS_TRACEBACK', '1')
    with pytest.raises(AssertionError, match=r'failed to load image: broken/red/1\.png'):
        call('train.py', CLASSIFIER, '--work-dir', 'broken_run', *options)


def test_two_processes_refuse_without_a_traceback(root, classifier):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    path = f'PATH={Path(sys.executable).parent}:{os.environ["PATH"]}'
    words = ('--cfg-options', 'model.head.num_classes=5')
    log = run(
        root, 'env', f'PORT={port}', path, 'bash', TOOLS / 'dist_test.sh', CLASSIFIER, classifier, '2', *words, code=1
    )
    assert log.count(f'error: {classifier} does not fit the model of the config') >= 1
    assert 'exitcode  : 2' in log
    assert 'SetupError' not in log
