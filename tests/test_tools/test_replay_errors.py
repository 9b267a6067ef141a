"""Replays of steps that are finite, incomplete, damaged or not to be trusted."""

import re
from pathlib import Path

import pytest
import torch
from commands import error_of
from replays import CLASSIFIER, NECK, layer_row, make_images, numbers, replay, rewritten, tool, train

GOLDEN = Path(__file__).parents[1] / 'golden'


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp('replay'))


@pytest.fixture(scope='module')
def captured(root) -> Path:
    return train(root, CLASSIFIER, NECK.format('log'))[1]


def test_a_step_that_is_finite_on_replay(captured, capsys):
    file = rewritten(captured, 'healed.pt', lambda capture: capture['attributes']['neck'].update(is_faulty=False))
    with pytest.raises(SystemExit) as end:
        replay(capsys, file)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert printed.err == 'the step is finite on replay: loss and all gradients\n'
    assert 'losses that differ from those of the training: loss, loss_cls, loss_aux' in printed.out
    assert 'first non-finite value' not in printed.out


def test_a_capture_without_the_model_and_a_checkpoint(captured, capsys):
    """The checkpoint of the first epoch has other weights, and so other losses."""
    file = rewritten(captured, 'small.pt', lambda capture: capture.update(model=None, left_out=['the model (9 bytes)']))
    printed = replay(capsys, file, '--checkpoint', captured.parents[1] / 'epoch_1.pth')
    assert layer_row(printed)[:3] == ['> neck', 'PoisonNeck', 'aten::log']


@pytest.mark.parametrize(
    ('change', 'words', 'message'),
    [
        (None, [], r"the capture '.*' does not exist"),
        (b'', [], r"'.*' cannot be read as a capture \(EOFError: "),
        (b'no capture', [], r"'.*' cannot be read as a capture \(UnpicklingError: "),
        (
            lambda capture: capture.pop('batch'),
            [],
            'is not a capture of DefocusFiniteLossHook; expected a file <work_d',
        ),
        (lambda capture: capture.update(format=9), [], r'has the format 9 and this version of mmdefocus reads 1; repl'),
        (
            lambda capture: capture.update(left_out=['the model (9 bytes)'], model=None),
            [],
            r'saved without the model \(9 bytes\), which was too large; give a checkpoint of the training',
        ),
        (
            lambda capture: capture.update(left_out=['the micro-batch (9 bytes)'], batch=None),
            [],
            r'saved without the micro-batch \(9 bytes\), which was too large; raise max_capture_bytes of DefocusFin',
        ),
        (
            lambda capture: None,
            ['--import-code', '--checkpoint', GOLDEN / 'cls_rope_official_cls.pth'],
            'parameters are m',
        ),
        (lambda capture: None, [], 'the config of the capture imports poison, which may run any code. If you trust'),
        (lambda capture: capture.update(config={}), [], 'the capture has no config of a model: the training was not'),
        (
            lambda capture: capture['config']['model']['backbone'].update(drop_path_rate=2.0),
            ['--import-code'],
            r'the model of the capture cannot be built \(\w+',
        ),
        (
            lambda capture: capture['model']['parameters'].pop('head.fc.weight'),
            ['--import-code'],
            r'describes has other parameters than the captured one \(1, among them head.fc.weight\)',
        ),
        (
            lambda capture: capture['batch']['kwargs'].update(inputs=torch.ones(1)),
            ['--import-code'],
            'the step ends with an error that non-finite values do not explain: ',
        ),
        (lambda capture: None, ['--import-code', '--device', 'cuda'], 'device cuda: PyTorch finds no such device here'),
        (lambda capture: None, ['--import-code', '--device', 'tape'], "--device takes cpu, cuda or cuda:1, got 'tape'"),
    ],
)
def test_a_step_that_cannot_be_repeated(captured, capsys, change, words, message):
    file = captured.with_name(f'changed_{next(numbers)}.pt')
    if isinstance(change, bytes):
        file.write_bytes(change)
    elif change is not None:
        rewritten(captured, file.name, change)
    assert re.search(message, error_of(capsys, tool, 'replay.py', file, *words))


def test_a_capture_runs_no_code_of_its_sender(captured, capsys, tmp_path):
    def attack(capture):
        capture['config']['custom_imports']['imports'].remove('poison')
        capture['config']['model'] = dict(type='os.mkdir', path=str(tmp_path / 'made'))

    file = rewritten(captured, 'attack.pt', attack)
    assert 'the model of the capture cannot be built' in error_of(capsys, tool, 'replay.py', file)
    assert not (tmp_path / 'made').exists()
