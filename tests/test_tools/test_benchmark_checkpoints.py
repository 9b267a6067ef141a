"""tools/benchmark_checkpoints.py: what it times, and what it refuses to."""

import importlib
from pathlib import Path

import pytest
import torch

CONFIG = Path(__file__).parents[2] / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'


@pytest.fixture
def benchmark():
    return importlib.import_module('benchmark_checkpoints')


def test_both_hooks_are_timed(benchmark, tmp_path, capsys):
    assert benchmark.main(['--config', str(CONFIG), '--directory', str(tmp_path), '--repeats', '1']) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    header, _, *rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    assert header == ['hook', 'save, s', 'save and sync, s', 'file, GB']
    assert [row[0] for row in rows] == ['CheckpointHook', 'DefocusCheckpointHook']
    assert all(0 < float(row[1]) <= float(row[2]) for row in rows)
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_is_not_timed(benchmark, tmp_path, capsys, monkeypatch):
    save = benchmark.save_checkpoint

    def save_rounded(state, path, **options):
        rounded = {name: tensor.half().float() for name, tensor in state['state_dict'].items()}
        save(state | dict(state_dict=rounded), path, **options)

    monkeypatch.setattr(benchmark, 'save_checkpoint', save_rounded)
    monkeypatch.setattr(benchmark, 'training_state', lambda _: dict(state_dict=dict(weight=torch.rand(9))))
    assert benchmark.main(['--directory', str(tmp_path)]) == 1
    assert 'NOT TIMED: CheckpointHook.pth differs from what was saved' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--repeats', '0'], '--repeats must be positive, got 0'),
        (['--directory', 'nowhere'], "--directory: 'nowhere' is no directory"),
        (['--config', 'nowhere.py'], 'nowhere.py'),
    ],
)
def test_wrong_options(benchmark, capsys, words, message):
    with pytest.raises(SystemExit, match='2'):
        benchmark.main(words)
    assert message in capsys.readouterr().err
