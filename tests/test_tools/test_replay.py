"""Trainings with a loss or a gradient that is not finite, through the tool, and the replay of the captured step."""

import itertools
import json
import os
import re
import runpy
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TOOLS, error_of, run
from PIL import Image

from mmdefocus.engine.step_capture import read_capture

HERE = Path(__file__).parent
GOLDEN = HERE.parent / 'golden'
numbers = itertools.count()
CLASSIFIER, DETECTOR, DINO = 'toy_image_folder.py', 'toy_detector.py', 'toy_dino.py'
BASE = """
custom_imports = dict(imports=['mmdefocus.models', 'mmdefocus.datasets', 'mmdefocus.engine', 'poison'])
default_hooks = dict(finite_loss=dict(type='DefocusFiniteLossHook'))
"""
NECK = """
model = dict(neck=dict(type='PoisonNeck', fault='{}'))
custom_hooks = [dict(type='PoisonHook', iteration=4)]
"""
WEIGHT = "custom_hooks = [dict(type='PoisonHook', iteration=1, weight='{}', value=float('{}'))]\n"
MIXUP = "model.update(train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))\n"


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """A directory with six training images of each of two classes, one of them named bad, and toy digits for COCO."""
    root = tmp_path_factory.mktemp('replay')
    for split, name in itertools.product(('train', 'val'), ('bright', 'dark')):
        (root / split / name).mkdir(parents=True)
        for number in range(6):
            file = 'bad' if (split, name, number) == ('train', 'dark', 3) else str(number)
            pixels = np.full((40, 40, 3), 20 * number + 100 * (name == 'bright'), np.uint8)
            Image.fromarray(pixels).save(root / split / name / f'{file}.png')
    return root


def tool(name: str, *words: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, words)])
        runpy.run_path(str(TOOLS / name), run_name='__main__')


def train(root: Path, toy: str, settings: str, **options: object) -> tuple[str, Path]:
    """Train until the error; return its message and the captured step."""
    number = next(numbers)
    config, work = root / f'config_{number}.py', root / f'work_{number}'
    config.write_text(f'_base_ = {str(HERE / toy)!r}\n{BASE}{settings}')
    words = [f'{key}={value}' for key, value in options.items()]
    words += [f'experiment_name=replay_{number}', f'data_root={root}']
    with pytest.raises(RuntimeError) as error:
        tool('train.py', config, '--work-dir', work, '--cfg-options', *words)
    (file,) = (work / 'non_finite').iterdir()
    return str(error.value), file


def replay(capsys: pytest.CaptureFixture, file: Path, *words: str | Path) -> str:
    capsys.readouterr()
    tool('replay.py', file, '--import-code', *words)
    return capsys.readouterr().out


def replay_in_new_process(file: Path, *words: str | Path, code: int = 0) -> str:
    """Replay with nothing of the training but the file."""
    environment = ['env', f'PYTHONPATH={HERE}:{os.environ.get("PYTHONPATH", "")}']
    return run(file.parent, *environment, sys.executable, TOOLS / 'replay.py', file, '--import-code', *words, code=code)


def layer_row(printed: str) -> list[str]:
    """Return the cells of the row of the first non-finite value."""
    (row,) = [line for line in printed.splitlines() if line.startswith('| > ')]
    return [cell.strip() for cell in row.strip('|').split('|')]


@pytest.mark.parametrize(
    ('fault', 'settings', 'operator', 'change', 'cause'),
    [
        ('log', '', 'aten::log', ['0 → inf', '0 → inf'], 'not finite in float64 either, so that a wider type does not'),
        ('exp', '', 'aten::exp', ['100 → inf', '100 → 2.69e+43'], 'overflow of float32: float64 gives 2.69e+43, the l'),
        ('half', MIXUP, 'aten::pow', ['300 → inf', '300 → 9e+04'], 'overflow of float16: float64 gives 9e+04, the la'),
        (
            'rounding',
            "optim_wrapper = dict(type='CpuAutocast')\n",
            'aten::reciprocal',
            ['0 → inf', '0.001 → 1e+03', '0.001 → 1e+03'],
            'underflow of bfloat16: input 0 has zeros where float32 has 0.001',
        ),
    ],
)
def test_a_layer_that_is_not_finite(root, capsys, fault, settings, operator, change, cause):
    message, file = train(root, CLASSIFIER, NECK.format(fault) + settings)
    assert message.startswith('the loss of iteration 4 is not finite (loss=')
    layer = 'neck.inner (Rounding)' if fault == 'rounding' else 'neck (PoisonNeck)'
    assert f'The first module with finite inputs and an output that is not is {layer}. Lower the' in message
    assert message.endswith(f'. "python tools/replay.py {file}" repeats this step operator by operator')
    printed = replay(capsys, file)
    assert layer_row(printed) == [f'> {layer.split()[0]}', layer.split()[1].strip('()'), operator, *change]
    assert f'\nfirst non-finite value: {layer.split()[0]}, forward pass, operator {operator}\n' in printed
    assert '\ncause: ' in printed
    assert cause in printed
    assert 'all 3 losses equal those of the training bit by bit' in printed
    capture = read_capture(file)
    assert capture['epoch'] == 1
    assert len(capture['images']) == 4
    assert all(f'| {image} ' in printed for image in capture['images'])
    assert capture['autocast'] == ({'cpu': 'bfloat16'} if fault == 'rounding' else {})


def test_mixed_precision_of_a_gpu_on_a_cpu(root, capsys):
    _, file = train(root, CLASSIFIER, NECK.format('rounding') + "optim_wrapper = dict(type='CpuAutocast')\n")
    on_gpu = rewritten(file, 'gpu.pt', lambda capture: capture.update(device='cuda:0', autocast={'cuda': 'bfloat16'}))
    assert 'underflow of bfloat16: input 0 has zeros' in replay(capsys, on_gpu, '--device', 'cpu')


@pytest.mark.parametrize(
    'settings', ['', 'optim_wrapper = dict(clip_grad=None)\n', 'optim_wrapper = dict(clip_grad=dict(max_norm=1.0))\n']
)
def test_a_gradient_that_is_not_finite(root, capsys, settings):
    """Also where the norm of gradient clipping is the check."""
    message, file = train(root, CLASSIFIER, NECK.format('root') + MIXUP + settings)
    assert message.startswith('the gradient of iteration 4 is not finite (loss=0.')
    assert (
        'The first module in the backward pass with a finite gradient of its output and one of its input or parameters '
        'that is not is neck (PoisonNeck): aten::div in SqrtBackward0. Lower the learning rate'
    ) in message
    printed = replay(capsys, file)
    assert layer_row(printed)[:3] == ['> neck', 'PoisonNeck', 'aten::div (backward)']
    assert '\nfirst non-finite value: neck, backward pass (SqrtBackward0), operator aten::div\n' in printed
    assert 'so that a wider type does not help; input 1 contains zeros' in printed
    assert 'all 3 losses equal those of the training bit by bit' in printed
    weights = read_capture(file)['model']['parameters'].values()
    assert all(weight.isfinite().all() for weight in weights), 'the optimiser has not used the gradient'


def test_accumulated_gradients_name_the_micro_batch(root, capsys):
    """Iterations 3 to 5 make one optimiser step; the fault begins in 4."""
    message, file = train(root, CLASSIFIER, NECK.format('root') + 'optim_wrapper = dict(accumulative_counts=3)\n')
    assert message.startswith('the gradient of iteration 4 is not finite (loss=0.')
    capture = read_capture(file)
    assert (capture['iteration'], capture['loss_divisor']) == (4, 3.0)
    printed = replay(capsys, file)
    assert 'step: iteration 4, epoch 1, process 1 of 1' in printed
    assert 'all 3 losses equal those of the training bit by bit' in printed


def test_an_image_that_is_not_finite(root, capsys, tmp_path):
    settings = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32),
    dict(type='PoisonPixels', value=float('inf')),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""
    message, file = train(root, CLASSIFIER, settings)
    assert 'The images of the batch are not finite. Lower the learning rate' in message
    printed = replay(capsys, file, '--out', tmp_path / 'found.json')
    assert '\nfirst non-finite value: the micro-batch, which was not finite before the step; first read by ' in printed
    assert '\ncause: data: see the images above, and their annotations\n' in printed
    (bad,) = [line.split() for line in printed.splitlines() if 'train/dark/bad.png' in line]
    assert bad[3] in ('inf', 'nan')
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['reproduced'] is True
    assert found['origin']['kind'] == 'data'
    assert [image['file'] for image in found['images'] if image['largest'] in ('inf', 'nan')] == [
        str(root / 'train' / 'dark' / 'bad.png')
    ]
    assert [run['type'] for run in found['runs']] == ['float32', 'float64']


def test_an_image_of_a_detector(digits_coco, capsys):
    settings = f"""
data_root = '{digits_coco}/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PoisonPixels', value=float('inf'), word='000001'),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""
    message, file = train(digits_coco, DETECTOR, settings)
    assert 'The images of the batch are not finite. Lower the learning rate' in message
    printed = replay(capsys, file)
    rows = [line.split() for line in printed.splitlines() if '.jpg ' in line]
    states = {Path(row[1]).name: ' '.join(row[3:-1]) for row in rows}
    assert states.pop('000001.jpg') == 'inf | not finite'
    assert [state.partition(' | ')[2] for state in states.values()] == ['finite']
    assert '; first read by backbone.conv1, forward pass, operator aten::convolution\n' in printed


def test_an_operator_of_this_package(root, capsys):
    message, file = train(root, CLASSIFIER, WEIGHT.format('backbone.layers.1.mixer.in_proj.weight', 1e25))
    assert 'an output that is not is backbone.layers.1.mixer (MambaMixer). Lower the learning rate' in message
    printed = replay(capsys, file)
    assert layer_row(printed)[:3] == ['> backbone.layers.1.mixer', 'MambaMixer', 'mmdefocus::defocus_scan']
    assert 'cause: range or rounding of float32 inside the operator, which is finite in float64\n' in printed


@pytest.mark.parametrize(
    ('toy', 'weight', 'message', 'reader'),
    [
        (
            CLASSIFIER,
            'backbone.layers.1.mixer.in_proj.weight',
            'the loss of iteration 1 is not finite',
            'backbone.layers.1.mixer, forward pass',
        ),
        (DETECTOR, 'backbone.conv1.weight', 'the loss of iteration 1 is not finite', 'backbone.conv1, forward pass'),
        (
            DINO,
            'bbox_head.reg_branches.0.4.weight',
            'the loss of iteration 1 cannot be computed (ValueError: matrix contains invalid numeric entries)',
            'bbox_head.reg_branches.0.4, forward pass',
        ),
    ],
)
def test_a_weight_that_is_not_finite(root, digits_coco, capsys, toy, weight, message, reader):
    data = '' if toy == CLASSIFIER else f"data_root = '{digits_coco}/'\n"
    text, file = train(root if toy == CLASSIFIER else digits_coco, toy, data + WEIGHT.format(weight, 'nan'))
    assert text.startswith(message)
    assert f'1 parameters are not finite since an earlier step, among them {weight}' in text
    printed = replay(capsys, file)
    if toy == DINO:
        assert 'ValueError: matrix contains invalid numeric entries' in printed
    assert f'first non-finite value: {weight}, which was not finite before the step; first read by {reader}' in printed
    assert '\ncause: weights: an earlier step, or the checkpoint that was loaded, has made them so\n' in printed
    assert read_capture(file)['problem'] == ('error' if toy == DINO else 'loss')


@pytest.mark.parametrize(
    ('toy', 'settings', 'losses'),
    [(CLASSIFIER, NECK.format('root') + MIXUP, 3), (DINO, WEIGHT.format('backbone.layers.1.mixer.A_log', 'inf'), 16)],
)
def test_a_new_process_repeats_the_losses_bit_by_bit(root, digits_coco, toy, settings, losses):
    """With drop path, mixup and DINO's noise: the losses are finite, the gradients are not."""
    data = '' if toy == CLASSIFIER else f"data_root = '{digits_coco}/'\n"
    message, file = train(root if toy == CLASSIFIER else digits_coco, toy, data + settings)
    assert message.startswith('the gradient of iteration')
    replay_in_new_process(file, '--out', file.parent / 'found.json')
    found = json.loads((file.parent / 'found.json').read_text())
    recorded = {name: value.item() for name, value in read_capture(file)['losses'].items()}
    assert len(recorded) == losses
    assert found['runs'][0]['losses'] == recorded
    assert found['different_losses'] == []
    assert found['reproduced'] is True
    assert recorded != pytest.approx(found['runs'][1]['losses'], rel=1e-12), 'float64 rounds otherwise'
    assert recorded == pytest.approx(found['runs'][1]['losses'], rel=1e-4), 'and has the same random numbers'


def rewritten(file: Path, name: str, change: Callable[[dict], None]) -> Path:
    capture = read_capture(file)
    change(capture)
    torch.save(capture, file.with_name(name))
    return file.with_name(name)


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


def test_a_gradient_of_one_of_two_processes(root, capsys):
    settings = NECK.format('root').replace('iteration=4', 'iteration=1, rank=1')
    config = root / 'parallel.py'
    config.write_text(f'_base_ = {str(HERE / CLASSIFIER)!r}\n{BASE}{settings}')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    paths = {'PATH': Path(sys.executable).parent, 'PYTHONPATH': HERE}
    extended = [f'{name}={first}:{os.environ.get(name, "")}' for name, first in paths.items()]
    command = ['bash', TOOLS / 'dist_train.sh', config, '2', '--work-dir', 'parallel']
    log = run(root, 'env', f'PORT={port}', *extended, *command, '--cfg-options', f'data_root={root}', code=1)
    assert [path.name for path in (root / 'parallel' / 'non_finite').iterdir()] == ['iter_1_rank_1.pt']
    assert 'that is not is neck (PoisonNeck): aten::div in SqrtBackward0. Lower the learning rate' in log
    assert 'The micro-batch of this process gives finite gradients, that of rank 1 does not. Lower the learnin' in log
    assert 'process 2 of 2' in replay(capsys, root / 'parallel' / 'non_finite' / 'iter_1_rank_1.pt')
