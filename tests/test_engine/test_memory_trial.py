"""A training is tried with its largest batch in a process of its own."""

import json

import pytest
import torch
from mmengine.config import Config

from mmdefocus.engine import memory_trial
from mmdefocus.engine.errors import SetupError
from mmdefocus.engine.memory_trial import LargestBatch, MemoryTrials, largest_batch
from mmdefocus.openmmlab import import_quietly

MIB = 2**20
import_quietly('mmdet.datasets', 'mmpretrain.datasets')


@pytest.fixture
def classifier():
    return Config.fromfile('configs/classification/defocus_mamba_nano_digits.py')


def test_largest_batch_of_a_detector(digits_coco):
    cfg = Config.fromfile('configs/dino/defocus_mamba_nano_digits.py')
    cfg.train_dataloader.dataset.data_root = f'{digits_coco}/'
    content = json.loads((digits_coco / 'annotations/instances_train.json').read_text())
    counts = [sum(ann['image_id'] == image['id'] for ann in content['annotations']) for image in content['images']]
    assert largest_batch(cfg) == LargestBatch(4, (160, 160), (160, 160), max(counts))
    cfg.train_dataloader.dataset.pipeline[1].with_mask = True
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, inner])
    batch = largest_batch(cfg)
    assert batch.masks
    assert batch.images == 8


def test_largest_batch_of_a_classifier(classifier):
    assert largest_batch(classifier) == LargestBatch(1397, (32, 32), (32, 32), 1)


def test_without_a_training_set():
    with pytest.raises(SetupError, match=r'needs train_dataloader\.dataset, which the config does not have; add it'):
        largest_batch(Config(dict(model=dict(type='DINO'))))


def test_real_steps(classifier, tmp_path, monkeypatch):
    """More images take more memory, too many do not fit, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = torch.get_rng_state()
    batch = LargestBatch(1397, (32, 32), (32, 32), 1)
    with MemoryTrials(classifier, batch, 'cpu', 512 * MIB) as trials:
        few, many = trials.measure(2), trials.measure(24)
        process = trials._process
        assert few.error is many.error is None
        assert few.peak_bytes + 10 * MIB < many.peak_bytes < 512 * MIB
        endless = trials.measure(4096)
    assert endless.error == 'out of memory'
    assert process.returncode is not None
    assert torch.equal(before, torch.get_rng_state())
    assert list(tmp_path.iterdir()) == []


def stand_in(monkeypatch, tmp_path, text):
    (tmp_path / 'stand_in_of_a_trial.py').write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(memory_trial, '_PROGRAM', 'stand_in_of_a_trial')


def test_a_killed_trial(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, 'import os, sys\nsys.stdin.buffer.read(10)\nos.kill(os.getpid(), 9)\n')
    with MemoryTrials(Config(), LargestBatch(9, (8, 8), (8, 8), 1), 'cpu', MIB) as trials:
        found = trials.measure(7)
        assert (found.count, found.peak_bytes, found.error) == (7, 0, 'killed')


def test_a_failing_trial(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "raise KeyError('no such layer')\n")
    with (
        MemoryTrials(Config(), LargestBatch(9, (8, 8), (8, 8), 1), 'cpu', MIB) as trials,
        pytest.raises(
            SetupError, match=r"trial of the training with a batch of 7 images failed: KeyError: 'no such layer'\. The "
        ),
    ):
        trials.measure(7)


def test_a_gpu_reports_reserved_memory(monkeypatch):
    from mmdefocus.engine import training_trial

    calls = []
    monkeypatch.setattr(training_trial, '_train', lambda *args: calls.append('train'))
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: calls.append('empty'))
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', lambda device: calls.append('reset'))
    monkeypatch.setattr(torch.cuda, 'max_memory_reserved', lambda device: 123)
    device = torch.device('cuda:0')
    assert training_trial._try(Config(), device, {}, 0) == dict(peak=123, error=None)
    assert calls == ['empty', 'reset', 'train']

    def fail(*args):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(training_trial, '_train', fail)
    assert training_trial._try(Config(), device, {}, 0)['error'] == 'out of memory'
