"""What the hook saves of a step, and what it says if it cannot."""

import errno
import os
import weakref
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from test_finite_loss_hook import BAD_IMAGE, Model, make_batches, message_of
from torch.optim import SGD

from mmdefocus.engine import DefocusFiniteLossHook
from mmdefocus.engine.step_capture import read_capture


def test_the_step_is_saved_as_it_began(tmp_path):
    """With what the forward pass itself changes: buffers, random numbers."""
    model = Model('function')
    model.register_buffer('calls', torch.zeros(()))

    def count(*_):
        model.calls.add_(1)

    model.blocks[0].register_forward_hook(count)
    message = message_of(tmp_path, 'function', model)
    path = tmp_path / 'non_finite' / 'iter_3_rank_0.pt'
    assert message.endswith(f'. "python tools/replay.py {path}" repeats this step operator by operator')
    capture = read_capture(path)
    assert capture['model']['buffers']['calls'] == 3
    assert capture['batch']['kwargs']['inputs']['index'] == BAD_IMAGE
    assert capture['problem'] == 'loss'
    assert {'torch', 'mmdefocus', 'mmengine', 'python'} <= capture['versions'].keys()
    assert message.startswith(capture['message'])
    assert list(path.parent.iterdir()) == [path], 'no temporary file is left'


MODEL_BYTES, BATCH_BYTES = 3 * 2 * 4 * (4 * 4 + 4), 4 * 4 + 8


@pytest.mark.parametrize(
    ('limit', 'left_out'),
    [
        (MODEL_BYTES + BATCH_BYTES, []),
        (MODEL_BYTES + BATCH_BYTES - 1, ['the model (480 bytes)']),
        (BATCH_BYTES - 1, ['the micro-batch (24 bytes)', 'the model (480 bytes)']),
    ],
)
def test_limit_of_the_size(tmp_path, limit, left_out):
    message = message_of(tmp_path, 'function', max_capture_bytes=limit)
    capture = read_capture(tmp_path / 'non_finite' / 'iter_3_rank_0.pt')
    assert capture['left_out'] == left_out
    assert (capture['model'] is None) == any('model' in part for part in left_out)
    assert (capture['batch'] is None) == any('batch' in part for part in left_out)
    if left_out:
        expected = f'.pt without {" and ".join(left_out)}, which exceed max_capture_bytes={limit:,}'
        assert message.endswith(expected)


def test_no_file(tmp_path):
    message = message_of(tmp_path, 'function', max_capture_bytes=0)
    assert message.endswith('. The step is not saved: max_capture_bytes=0')
    assert not (tmp_path / 'non_finite').exists()
    with pytest.raises(ValueError, match=r'^max_capture_bytes must not be negative, got -1$'):
        DefocusFiniteLossHook(max_capture_bytes=-1)


def test_a_full_disk_does_not_hide_the_loss(tmp_path, monkeypatch):
    def write(content, file):
        file.write(b'first part')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, 'save', write)
    message = message_of(tmp_path, 'function')
    assert message.startswith('the loss of iteration 3 is not finite (loss=')
    assert 'is blocks.1 (Block). Lower the learning rate' in message
    path = tmp_path / 'non_finite' / 'iter_3_rank_0.pt'
    assert message.endswith(f'. The step could not be saved to {path} (OSError: [Errno 28] No space left on device)')
    assert list(path.parent.iterdir()) == []


def test_a_batch_of_unknown_objects_does_not_hide_the_loss(tmp_path):
    model = Model('function')
    batch = {'inputs': {'x': torch.full((1, 4), torch.inf), 'index': torch.tensor(0), 'other': object()}}
    wrapper = OptimWrapper(SGD(model.parameters(), 0.1))
    facts = dict(iter=7, epoch=0, work_dir=str(tmp_path), cfg=Config())
    DefocusFiniteLossHook().before_train(SimpleNamespace(model=model, optim_wrapper=wrapper, **facts))
    with pytest.raises(
        RuntimeError, match=r'^the loss of iteration 7 is not finite .* \(TypeError: a batch with a builtin'
    ):
        model(**batch, mode='loss')


def test_the_batch_is_released_after_its_iteration(tmp_path):
    model = Model(fault=None)
    wrapper = OptimWrapper(SGD(model.parameters(), 0.1))
    hook = DefocusFiniteLossHook()
    runner = SimpleNamespace(model=model, iter=0, epoch=0, optim_wrapper=wrapper)
    hook.before_train(runner)
    batch = make_batches(None)[0]
    kept = weakref.ref(batch['x'])
    wrapper.update_params(model(batch, mode='loss')['loss'])
    hook.after_train_iter(runner, 0)
    del batch
    assert kept() is None
