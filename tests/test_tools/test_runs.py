"""The tools as a user runs them: other processes, another directory, stock models of a few hundred parameters."""

import json
import os
import pickle
import runpy
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, run, tool
from mmengine.runner import CheckpointLoader
from PIL import Image

HERE = Path(__file__).parent
DETECTOR, CLASSIFIER = HERE / 'toy_detector.py', HERE / 'toy_classifier.py'


@pytest.fixture(scope='module')
def detection(tmp_path_factory, digits_coco) -> Path:
    """A directory with the digits and a detector trained on them for two epochs in ``work``."""
    root = tmp_path_factory.mktemp('detection')
    (root / 'data').mkdir()
    (root / 'data' / 'digits').symlink_to(digits_coco)
    log = tool(root, 'train.py', DETECTOR, '--work-dir', 'work')
    assert 'eta: ' in log
    assert 'Saving checkpoint at 2 epochs' in log
    return root


@pytest.fixture(scope='module')
def classification(tmp_path_factory) -> Path:
    """A directory with three classes of flat images and a classifier trained on them in the default directory."""
    root = tmp_path_factory.mktemp('classification')
    for label in range(3):
        folder = root / 'data' / 'folders' / f'class{label}'
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((40, 40, 3), 100 * label + number, np.uint8)).save(folder / f'{label}{number}.png')
    tool(root, 'train.py', CLASSIFIER)
    return root


def test_detection_is_tested_with_table_predictions_and_pictures(detection, digits_coco):
    log = tool(
        detection,
        'test.py',
        DETECTOR,
        'work/epoch_2.pth',
        *('--work-dir', 'tested', '--out', 'tested/predictions.pkl', '--show-dir', 'tested/pictures'),
    )
    table = log[log.index('COCO box AP\n') :]
    assert '|    AP |  AP50 |  AP75 |   APs |   APm | APl |' in table
    assert '| class |' in table
    assert '\npredictions: tested/predictions.pkl\npictures: tested/pictures\n' in table
    predictions = pickle.loads((detection / 'tested' / 'predictions.pkl').read_bytes())
    assert len(predictions) == 4
    assert predictions[0]['pred_instances']['bboxes'].shape[1] == 4
    names = [
        image['file_name']
        for image in json.loads((digits_coco / 'annotations/instances_val.json').read_text())['images']
    ]
    assert sorted(path.name for path in (detection / 'tested' / 'pictures').iterdir()) == names
    with Image.open(detection / 'tested' / 'pictures' / names[0]) as picture:
        assert picture.size == (320, 160), 'ground truth and predictions side by side'


def test_detection_with_test_time_augmentation(detection):
    log = tool(detection, 'test.py', DETECTOR, 'work/epoch_2.pth', '--tta', '--work-dir', 'augmented')
    assert 'COCO box AP\n' in log


def test_resumed_training_continues_the_uninterrupted_one(detection):
    work = detection / 'resumed'
    work.mkdir()
    shutil.copy(detection / 'work' / 'epoch_1.pth', work)
    (work / 'last_checkpoint').write_text(str(work / 'epoch_1.pth'))
    log = tool(detection, 'train.py', DETECTOR, '--work-dir', 'resumed', '--resume')
    assert 'resumed epoch: 1, iter: 2' in log
    assert 'Could not safely load' not in log
    states = [
        CheckpointLoader.load_checkpoint(str(path / 'epoch_2.pth'), map_location='cpu')['state_dict']
        for path in (work, detection / 'work')
    ]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], msg=name)


# Python runs it at the start of every process. A thread that is left may abort the process, which is seldom seen.
COUNT_GLOO_THREADS = """
import atexit, os, pathlib
def report():
    threads = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')]
    rank, gloo = os.environ.get('RANK'), sum('gloo' in name for name in threads)
    print(f'process {rank} ends with {gloo} threads of Gloo', flush=True)
atexit.register(report)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='threads are counted in /proc')
def test_two_processes_without_a_gpu(detection):
    (detection / 'sitecustomize.py').write_text(COUNT_GLOO_THREADS)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = ['bash', TOOLS / 'dist_train.sh', DETECTOR, '2', '--work-dir', 'distributed']
    paths = {'PATH': Path(sys.executable).parent, 'PYTHONPATH': detection}
    extended = [f'{name}={first}:{os.environ.get(name, "")}' for name, first in paths.items()]
    environment = ['env', f'PORT={port}', *extended]
    log = run(detection, *environment, *command, '--cfg-options', 'train_cfg.max_epochs=1')
    assert 'Distributed training: True' in log
    assert 'GPU number: 2' in log
    assert 'Epoch(train) [1][1/1]' in log
    assert (detection / 'distributed' / 'epoch_1.pth').is_file()
    assert 'process 0 ends with 0 threads of Gloo' in log
    assert 'process 1 ends with 0 threads of Gloo' in log


def test_classification_is_tested_with_accuracy_predictions_and_pictures(classification):
    checkpoint = classification / 'work_dirs' / 'toy_classifier' / 'epoch_1.pth'
    log = tool(
        classification,
        'test.py',
        CLASSIFIER,
        checkpoint,
        *('--out', 'predictions.pkl', '--show-dir', 'pictures'),
    )
    table = log[log.index('Metrics\n') :]
    assert '| accuracy/top1 |' in table
    assert '| accuracy/top2 |' in table
    predictions = pickle.loads((classification / 'predictions.pkl').read_bytes())
    assert len(predictions) == 6
    assert predictions[0]['pred_score'].shape == (3,)
    assert len(list((classification / 'pictures').iterdir())) == 6


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_launch_scripts_explain_themselves(tmp_path, script):
    assert 'usage: ' in run(tmp_path, 'bash', TOOLS / script, 'config.py', code=2)


@pytest.mark.parametrize(
    ('script', 'arguments', 'expected'),
    [
        (
            'slurm_train.sh',
            ['part', 'name', 'cfg.py', 'work dir', '--amp'],
            ['train.py', 'cfg.py', '--work-dir', 'work dir', '--launcher', 'slurm', '--amp'],
        ),
        (
            'slurm_test.sh',
            ['part', 'name', 'cfg.py', 'a.pth', '--out', 'a b.pkl'],
            ['test.py', 'cfg.py', 'a.pth', '--launcher', 'slurm', '--out', 'a b.pkl'],
        ),
    ],
)
def test_slurm_scripts_hand_their_arguments_on(tmp_path, script, arguments, expected):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    log = run(tmp_path, 'env', f'PATH={tmp_path}:{os.environ["PATH"]}', 'bash', TOOLS / script, *arguments)
    words = log.splitlines()
    assert words[:3] == ['--partition=part', '--job-name=name', '--gres=gpu:8']
    given = words[words.index('-u') + 1 :]
    assert [Path(given[0]).name, *given[1:]] == expected


def main(monkeypatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    runpy.run_path(str(TOOLS / name), run_name='__main__')


def test_data_tools(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    size = ('--out', 'set', '--train-images', '2', '--val-images', '1', '--size', '64', '--digits', '1', '1')
    main(monkeypatch, 'make_digits_coco.py', *size)
    printed = capsys.readouterr()
    assert '3/3' in printed.err
    assert printed.out.endswith('made set: 2 training and 1 validation images\n')
    main(monkeypatch, 'make_digits_coco.py', *size)
    assert capsys.readouterr().out == 'set already holds this set: 2 training and 1 validation images\n'
    with pytest.raises(SystemExit, match='2'):
        main(monkeypatch, 'make_digits_coco.py', *size, '--seed', '1')
    expected = 'error: set holds a digits set made with other options (seed=0 instead of 1); use --force to replace it'
    assert capsys.readouterr().err.startswith(expected)
    main(monkeypatch, 'make_photos_coco.py', '--out', 'photos')
    assert capsys.readouterr().out == 'made photos\n'


def test_mistakes_are_one_readable_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='2'):
        main(monkeypatch, 'train.py', str(HERE / 'toy_image_foldr.py'))
    missing, similar = HERE / 'toy_image_foldr.py', HERE / 'toy_image_folder.py'
    expected = f"error: config file '{missing}' does not exist; did you mean {similar}?\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(SystemExit, match='2'):
        main(monkeypatch, 'test.py', str(DETECTOR), 'none.pth')
    expected = "error: checkpoint 'none.pth' does not exist; expected the path or the URL of a checkpoint: correct it\n"
    assert capsys.readouterr().err == expected
