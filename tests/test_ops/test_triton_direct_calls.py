"""Tests that direct calls of the Triton operators check their arguments: the kernels would access invalid memory."""

import pytest
import torch
from test_bandpass_attention import make as make_attention
from test_causal_conv1d import make as make_conv
from test_defocus_scan import make as make_scan
from test_neighbourhood_attention import make as make_map

from mmdefocus.ops.bandpass.arguments import TRITON_BLOCK

SCAN = ('u', 'dt', 'A', 'B', 'C', 'D', 'z', 'dt_bias', 'initial_state')


def without_gradients(arguments):
    return {name: tensor.detach() for name, tensor in arguments.items()}


def scan_arguments(length=3, channels=8, state=4):
    arguments = without_gradients(make_scan(length=length, channels=channels, state=state))
    return {name: arguments[name] for name in SCAN} | {'delta_scale': 2.0, 'group_size': 8, 'eps': 1e-6}


def conv_arguments():
    x, weight, bias = make_conv(length=5)
    return without_gradients({'x': x, 'weight': weight, 'bias': bias}) | {'silu': True}


def attention_arguments():
    arguments = without_gradients(make_attention())
    parameters = {'self_logits': torch.rand(2, 3, 70, 1), 'decay': torch.rand(3, 8)}
    return {name: arguments[name] for name in 'qkv'} | parameters | {'causal': True}


def map_arguments():
    return without_gradients(make_map()) | {'kernel_size': 3, 'scale': 0.5}


SCAN_CHANGES = [
    ({'u': torch.zeros(2, 8)}, ValueError, r'expected u of shape \(batch, length, channels\), got \(2, 8\)'),
    ({'u': torch.zeros(2, 0, 8)}, ValueError, r'at least one token, got u of shape \(2, 0, 8\)'),
    ({'dt': torch.zeros(2, 2, 8)}, ValueError, r'expected dt of shape .* = \(2, 3, 8\), got \(2, 2, 8\)'),
    ({'z': torch.zeros(2, 3, 8).half()}, TypeError, 'expected z as torch.float32, got torch.float16'),
    ({'A': torch.zeros(7, 4)}, ValueError, r'expected A of shape .* = \(8, 4\), got \(7, 4\)'),
    ({'A': torch.zeros(8, 0)}, ValueError, r'a state of at least one number, got A of shape \(8, 0\)'),
    ({'B': torch.zeros(2, 3, 3)}, ValueError, r'expected B of shape .* = \(2, 3, 4\), got \(2, 3, 3\)'),
    ({'C': torch.zeros(2, 3, 4).half()}, TypeError, 'expected C as torch.float32, got torch.float16'),
    ({'D': torch.zeros(7)}, ValueError, r'expected D of shape .* = \(8,\), got \(7,\)'),
    ({'dt_bias': torch.zeros(1)}, ValueError, r'expected dt_bias of shape .* = \(8,\), got \(1,\)'),
    ({'group_size': 3}, ValueError, 'a group_size that divides the 8 channels, got 3'),
]
CONV_CHANGES = [
    ({'x': torch.zeros(40, 5)}, ValueError, r'expected x of shape \(batch, channels, length\), got \(40, 5\)'),
    ({'weight': torch.zeros(39, 4)}, ValueError, r'expected weight of shape .* = \(40, 4\), got \(39, 4\)'),
    ({'weight': torch.zeros(40, 5)}, ValueError, 'its kernels take a width of up to 4, got 5'),
    ({'weight': torch.zeros(40, 4).half()}, TypeError, 'expected weight as torch.float32, got torch.float16'),
    ({'bias': torch.zeros(39)}, ValueError, r'expected bias of shape .* = \(40,\), got \(39,\)'),
]
ATTENTION_CHANGES = [
    ({'q': torch.zeros(2, 3, 70)}, ValueError, r'expected q of shape .*, got \(2, 3, 70\)'),
    ({'k': torch.zeros(2, 3, 69, 8)}, ValueError, r'expected k of shape .* = \(2, 3, 70, 8\), got \(2, 3, 69, 8\)'),
    ({'v': torch.zeros(2, 3, 69, 5)}, ValueError, r'expected v of shape .* = \(2, 3, 70, 5\), got \(2, 3, 69, 5\)'),
    ({'k': torch.zeros(2, 3, 70, 8).half()}, TypeError, 'expected k as torch.float32, got torch.float16'),
    ({'self_logits': torch.zeros(2, 3, 70)}, ValueError, r'expected self_logits of shape .* = \(2, 3, 70, 1\), got'),
    ({'decay': torch.zeros(2, 8)}, ValueError, r'expected decay of shape .* = \(3, 8\), got \(2, 8\)'),
    ({'decay': torch.zeros(3, 8).half()}, TypeError, 'expected decay as torch.float32, got torch.float16'),
]
MAP_CHANGES = [
    ({'q': torch.zeros(2, 3, 9, 11)}, ValueError, r'expected q of shape .*, got \(2, 3, 9, 11\)'),
    (
        {'k': torch.zeros(2, 3, 9, 9, 5)},
        ValueError,
        r'expected k of shape .* = \(2, 3, 9, 11, 5\), got \(2, 3, 9, 9, 5\)',
    ),
    ({'v': torch.zeros(2, 3, 9, 11, 4)}, ValueError, r'expected v of shape .* = \(2, 3, 9, 11, 5\), got'),
    ({'bias': torch.zeros(3, 5, 4)}, ValueError, r'expected bias of shape .* = \(3, 5, 5\), got \(3, 5, 4\)'),
    ({'bias': torch.zeros(3, 5, 5).half()}, TypeError, 'expected bias as torch.float32, got torch.float16'),
    ({'kernel_size': 2}, ValueError, 'expected an odd kernel_size of at least 1, got 2'),
    ({'kernel_size': 11}, ValueError, 'at least kernel_size = 11 rows and columns, got 9 x 11'),
]
BACKWARD_CHANGES = {
    'defocus_scan_triton': [
        ({'grad_y': torch.zeros(2, 3, 7)}, ValueError, r'expected grad_y of shape .* = \(2, 3, 8\), got \(2, 3, 7\)'),
        ({'grad_y': torch.zeros(2, 3, 8).half()}, TypeError, 'expected grad_y as torch.float32, got torch.float16'),
        ({'grad_last_state': torch.zeros(2, 4, 8)}, ValueError, r'grad_last_state of shape .* got \(2, 4, 8\)'),
        ({'chunk_states': torch.zeros(2, 0, 8, 4)}, ValueError, r'chunk_states of shape .* = \(2, 1, 8, 4\), got'),
    ],
    'causal_conv1d_triton': [
        ({'grad': torch.zeros(2, 40, 4)}, ValueError, r'expected grad of shape .* = \(2, 40, 5\), got \(2, 40, 4\)'),
        ({'grad': torch.zeros(2, 40, 5).half()}, TypeError, 'expected grad as torch.float32, got torch.float16'),
    ],
    'bandpass_attention_triton': [
        ({'grad': torch.zeros(2, 3, 70, 4)}, ValueError, r'expected grad of shape .* = \(2, 3, 70, 5\), got'),
        ({'y': torch.zeros(2, 3, 70, 5).half()}, TypeError, 'expected y as torch.float32, got torch.float16'),
        ({'lse': torch.zeros(2, 3, 69)}, ValueError, r'expected lse of shape .* = \(2, 3, 70\), got \(2, 3, 69\)'),
        (
            {'intra_block': torch.zeros(2, 3, 1, 64, 64)},
            ValueError,
            r'expected intra_block of shape .* = \(2, 3, 2, 64, 64\), got',
        ),
    ],
    'neighbourhood_attention_triton': [
        ({'grad': torch.zeros(2, 3, 9, 11, 4)}, ValueError, r'expected grad of shape .* = \(2, 3, 9, 11, 5\), got'),
        ({'y': torch.zeros(2, 3, 9, 11, 5).half()}, TypeError, 'expected y as torch.float32, got torch.float16'),
        ({'lse': torch.zeros(2, 3, 99)}, ValueError, r'expected lse of shape .* = \(2, 3, 9, 11\), got \(2, 3, 99\)'),
    ],
}
FORWARD = {
    'defocus_scan_triton': (scan_arguments, SCAN_CHANGES),
    'causal_conv1d_triton': (conv_arguments, CONV_CHANGES),
    'bandpass_attention_triton': (attention_arguments, ATTENTION_CHANGES),
    'neighbourhood_attention_triton': (map_arguments, MAP_CHANGES),
}


def backward_arguments(op):
    arguments = FORWARD[op][0]()
    if op == 'defocus_scan_triton':
        state = arguments.pop('initial_state')
        saved = {'grad_y': arguments['u'], 'grad_last_state': state, 'chunk_states': torch.zeros(2, 1, 8, 4)}
    elif op == 'causal_conv1d_triton':
        saved = {'grad': arguments['x']}
    elif op == 'neighbourhood_attention_triton':
        saved = {'grad': arguments['q'], 'y': arguments['q'], 'lse': torch.zeros(2, 3, 9, 11)}
    else:
        saved = dict.fromkeys(('grad', 'y'), arguments['v'])
        saved |= {'lse': torch.zeros(2, 3, 70), 'intra_block': torch.zeros(2, 3, 2, TRITON_BLOCK, TRITON_BLOCK)}
    return arguments | saved


def refused(operator, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(torch.ops.mmdefocus, operator)(**arguments)


@pytest.mark.parametrize(
    ('op', 'changes', 'error', 'message'), [(op, *change) for op, (_, changes) in FORWARD.items() for change in changes]
)
def test_forward(op, changes, error, message):
    refused(op, FORWARD[op][0]() | changes, error, f'{op}: .*{message}')
    refused(f'{op}_backward', backward_arguments(op) | changes, error, f'{op}: .*{message}')


def test_a_state_to_begin_with_of_another_shape():
    changed = scan_arguments() | {'initial_state': torch.zeros(2, 4, 8)}
    refused('defocus_scan_triton', changed, ValueError, r'initial_state of shape .* = \(2, 8, 4\), got \(2, 4, 8\)')


def test_sizes_that_the_kernels_of_the_scan_do_not_take():
    wide = scan_arguments(state=34)
    refused('defocus_scan_triton', wide, ValueError, 'its kernels take a state of up to 32, got 34')
    coarse = scan_arguments(channels=129) | {'group_size': 129}
    refused('defocus_scan_triton', coarse, ValueError, 'its kernels take a group_size of up to 128, got 129')


@pytest.mark.parametrize(
    ('op', 'changes', 'error', 'message'), [(op, *change) for op, all_ in BACKWARD_CHANGES.items() for change in all_]
)
def test_backward(op, changes, error, message):
    refused(f'{op}_backward', backward_arguments(op) | changes, error, f'{op}: .*{message}')


@pytest.mark.parametrize('op', FORWARD)
def test_float64(op):
    double = {name: x.double() if torch.is_tensor(x) else x for name, x in FORWARD[op][0]().items()}
    refused(op, double, TypeError, 'as torch.float32, got torch.float64')
