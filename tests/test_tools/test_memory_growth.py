"""The check that memory and open files do not grow notices growth."""

import mmap
import runpy
import sys

import pytest
from commands import TOOLS
from mmengine.hooks import Hook
from studies.memory_growth import MIB, Sample, find_problems, format_samples, run

CONFIG = TOOLS.parent / 'configs/dino/defocus_mamba_nano_digits.py'


def samples(memory=0.0, files=0):
    """Return two phases of 45 samples; the training grows by the given number of MiB and files per sample."""
    train = [Sample('train', (5 + n) / 50, int((1000 + memory * n) * MIB), 7 + files * n) for n in range(45)]
    return [*train, *(Sample('val', (5 + n) / 50, 1000 * MIB, 7) for n in range(45))]


def test_verdicts():
    assert find_problems(samples()) == []
    assert find_problems(samples(memory=0.1)) == []
    assert find_problems(samples(memory=1.0)) == ['train: memory grew by 41.0 MiB, more than 10 MiB']
    assert find_problems(samples(files=1)) == ['train: 41 more files are open at the end']
    with pytest.raises(ValueError, match='growth needs at least two samples of val, got 0; use more images'):
        find_problems(samples()[:45])


def test_the_table():
    lines = format_samples(samples()).splitlines()
    assert lines[2] == '| train | 10% | 1000.0 | 7 |'
    assert lines[-1] == '| val | 98% | 1000.0 | 7 |'


class Leak(Hook):
    """Keeps memory and a file at every step of the training."""

    def __init__(self, path):
        self.path, self.kept = path, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        memory = mmap.mmap(-1, 8 * MIB)  # the allocator would give freed memory of earlier tests
        memory.write(b'x' * len(memory))
        self.kept.append((memory, self.path.open()))


def test_a_training_with_and_without_a_leak(tmp_path, monkeypatch):
    """A hundred images; the first steps of a training take memory that it keeps, so that the bound is higher."""
    monkeypatch.syspath_prepend(str(TOOLS))
    clean = run(CONFIG, tmp_path / 'clean', images=100, side=48, workers=0, batch_size=4)
    assert find_problems(clean, 60 * MIB) == []
    leak = Leak(CONFIG)
    found = find_problems(run(CONFIG, tmp_path / 'leak', 100, 48, 0, 4, hooks=[leak]), 60 * MIB)
    for memory, file in leak.kept:
        memory.close()
        file.close()
    assert [problem.partition(' grew')[0] for problem in found[:1]] == ['train: memory']
    assert any('more files are open' in problem for problem in found)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--images', '10'], '--images must be at least 100, got 10'),
        (['--size', '32'], '--size must be at least 48, got 32'),
    ],
)
def test_numbers_that_are_too_small(words, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, 'argv', ['check_growth.py', *words])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOLS / 'check_growth.py'), run_name='__main__')
    assert message in capsys.readouterr().err
