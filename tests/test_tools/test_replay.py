"""Trainings with a loss or a gradient that is not finite, through the tool, and the replay of the captured step."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from commands import TOOLS, run
from replays import (
    BASE,
    CLASSIFIER,
    DETECTOR,
    DINO,
    HERE,
    MIXED,
    MIXUP,
    NECK,
    WEIGHT,
    layer_row,
    make_images,
    replay,
    replay_in_new_process,
    rewritten,
    train,
)

from mmdefocus.engine import amp_optim_wrapper
from mmdefocus.engine.step_capture import read_capture


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return make_images(tmp_path_factory.mktemp('replay'))


@pytest.fixture(autouse=True)
def _bfloat16(monkeypatch):
    """Any CPU computes in bfloat16; those without the instructions are slow at it."""
    monkeypatch.setattr(amp_optim_wrapper, 'cpu_has_bfloat16', lambda: True)


@pytest.mark.parametrize(
    ('fault', 'settings', 'operator', 'change', 'cause'),
    [
        ('log', '', 'aten::log', ['0 → inf', '0 → inf'], 'not finite in float64 either, so that a wider type does not'),
        ('exp', '', 'aten::exp', ['100 → inf', '100 → 2.69e+43'], 'overflow of float32: float64 gives 2.69e+43, the l'),
        ('half', MIXUP, 'aten::pow', ['300 → inf', '300 → 9e+04'], 'overflow of float16: float64 gives 9e+04, the la'),
        (
            'rounding',
            MIXED,
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
    _, file = train(root, CLASSIFIER, NECK.format('rounding') + MIXED)
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
