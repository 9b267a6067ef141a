"""The benchmark of the optimiser on a small network: the report is complete, and differing weights are not timed."""

import importlib

import pytest
from commands import TOOLS

from mmdefocus.engine import DefocusOptimWrapperConstructor

CONFIGS = TOOLS.parent / 'configs' / 'classification'
DIGITS = str(CONFIGS / 'defocus_mamba_nano_digits.py')


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr('sys.argv', ['benchmark_optimizer.py'])
    return importlib.import_module('benchmark_optimizer')


def test_report(benchmark, tmp_path):
    report = tmp_path / 'new' / 'report.md'
    assert benchmark.main(['--networks', DIGITS, '--seconds', '1e-9', '--out', str(report)]) == 0
    rows = [line for line in report.read_text().splitlines() if line.startswith('| defocus')]
    cells = [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]
    assert [row[1] for row in cells] == ['for-loop', 'foreach', 'fused']
    assert [(int(row[2]) > 40, row[4]) for row in cells] == [(True, '2')] * 3
    assert all(float(row[3]) / float(row[5]) == pytest.approx(float(row[6]), rel=0.2) for row in cells)


def test_weights_that_differ_are_not_timed(benchmark, monkeypatch, capsys):
    def add_params(self, params, *args, original=DefocusOptimWrapperConstructor.add_params, **kwargs):
        original(self, params, *args, **kwargs)
        if not kwargs.get('prefix'):
            params[0]['lr'] = 0.25

    monkeypatch.setattr(DefocusOptimWrapperConstructor, 'add_params', add_params)
    assert benchmark.main(['--networks', DIGITS, '--seconds', '1e-9']) == 1
    assert capsys.readouterr().out.count('NOT TIMED: the weights differ') == 6  # while it runs, and in the report


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--networks', str(CONFIGS / 'defocus_mamba_large_21k_eval_1k.py')], 'has no constructor that merges'),
        (['--networks', 'none.py'], "config file 'none.py' does not exist"),
    ],
)
def test_configs_without_merged_groups(benchmark, capsys, options, message):
    assert benchmark.main(['--seconds', '1e-9', *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'), [(['--threads', '0'], '--threads must be positive, got 0'), (['--device', 'cuda'], 'CUDA')]
)
def test_arguments(benchmark, monkeypatch, capsys, options, message):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit):
        benchmark.main(options)
    assert message in capsys.readouterr().err
