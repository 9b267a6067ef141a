"""The programs of the GPU report, on the CPU and with toy networks: they write what the report reads."""

import dataclasses
import gzip
import json
import subprocess

import pytest
import torch
from benchmarking.scans import CAUSAL_CONV1D, DEFOCUS_SCAN
from commands import TOOLS
from gpu_report_parts import layer_profile, machine_facts, readers, small_operators, training

CONFIGS = TOOLS.parent / 'configs'
CPU = torch.device('cpu')
SIZES = {
    'classifier': (CONFIGS / 'classification' / 'defocus_mamba_nano_digits.py', 32),
    'detector': (CONFIGS / 'dino' / 'defocus_mamba_nano_digits.py', 64),
}


def call(monkeypatch, program, *words):
    monkeypatch.setattr('sys.argv', ['program', *map(str, words)])
    return program.main()


@pytest.mark.parametrize('task', SIZES)
def test_trainings_learn_synthetic_images(monkeypatch, tmp_path, task):
    config, side = SIZES[task]
    facts = tmp_path / 'facts.json'
    sizes = ('--config', config, '--side', side, '--batch', 2, '--steps', 12)
    call(monkeypatch, training, task, *sizes, '--device', 'cpu', '--facts', facts)
    found = readers.read_training(tmp_path, '', 0)
    assert found.status == 'passed', found.reason
    assert len(found.facts['losses']) == 12
    assert (found.facts['config'], found.facts['batch'], found.facts['side']) == (config.stem, 2, side)
    assert found.facts['images_per_second'] == pytest.approx(2 / found.facts['seconds_per_step'])
    assert found.facts['peak_bytes'] is None, 'it is measured on GPUs alone'


def test_a_loss_that_is_not_finite_is_written(tmp_path):
    weight = torch.nn.Linear(1, 1)
    losses = iter([1.0, float('nan'), float('inf')])
    facts = training.train(weight, lambda: weight.weight.sum() * 0 + next(losses), 3, 1.0, CPU)
    assert facts['losses'] == [1.0, None, None]


def test_published_configs_are_trained_at_their_sizes():
    assert [path.is_file() for path in training.CONFIG.values()] == [True, True]
    assert training.SIDE['classifier'] == 224


def test_trainings_of_one_step_are_refused(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        call(monkeypatch, training, 'classifier', '--steps', 1, '--facts', tmp_path / 'facts.json')
    assert '--steps must be at least 2, got 1' in capsys.readouterr().err


@pytest.mark.parametrize('whole', [True, False])
def test_kernels_of_a_layer(monkeypatch, tmp_path, whole):
    if not whole:
        monkeypatch.setattr(layer_profile.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(layer_profile, 'RUNS', 2)
    trace = tmp_path / 'trace.json.gz'
    words = ('--device', 'cpu', '--batch', 1, '--facts', tmp_path / 'facts.json', '--trace', trace)
    call(monkeypatch, layer_profile, *words)
    found = readers.read_facts(tmp_path, '', 0)
    what = 'layer 1 of De-focus Mamba base' if whole else 'the mixer between its outer projections'
    assert found.reason.startswith(f'{what}, forward and backward, batch 1, 197 tokens: ')
    rows = found.facts['rows']
    assert [row['microseconds'] for row in rows] == sorted((row['microseconds'] for row in rows), reverse=True)
    assert any('defocus_scan' in row['kernel'] for row in rows)
    assert sum(row['microseconds'] for row in rows) <= found.facts['total'] * 1.001
    assert 'traceEvents' in json.loads(gzip.decompress(trace.read_bytes()))


def cannot_run(**tensors):
    raise RuntimeError("backend 'triton' cannot run: no GPU")


def no_operator(**tensors):
    raise RuntimeError("backend 'cuda' does not have this operator; those that do: reference")


def small(monkeypatch, tmp_path, **implementations):
    """Run the program for compute-sanitizer with stand-ins for the kernels; return status and facts."""
    scan, conv = DEFOCUS_SCAN.implementations['reference'], CAUSAL_CONV1D.implementations['reference']
    operators = {
        'defocus_scan': dataclasses.replace(DEFOCUS_SCAN, implementations={'cuda': scan} | implementations),
        'causal_conv1d': dataclasses.replace(CAUSAL_CONV1D, implementations={'triton': conv, 'cuda': no_operator}),
    }
    monkeypatch.setattr(small_operators, 'OPERATORS', operators)
    monkeypatch.setattr(small_operators, 'SHAPES', (small_operators.Shape(1, 3, 64),))
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    status = call(monkeypatch, small_operators, '--device', 'cpu', '--facts', tmp_path / 'facts.json')
    return status, json.loads((tmp_path / 'facts.json').read_text())


def test_small_operators_run_forward_and_backward(monkeypatch, tmp_path):
    assert small(monkeypatch, tmp_path) == (
        0,
        dict(
            ran=[
                'defocus_scan cuda (1, 3) torch.bfloat16',
                'defocus_scan cuda (1, 3) torch.float32',
                'causal_conv1d triton (1, 3) torch.bfloat16',
            ],
            not_finite=[],
            obstacles=[],
        ),
    )


def test_small_operators_that_cannot_run_or_are_not_finite(monkeypatch, tmp_path):
    status, facts = small(monkeypatch, tmp_path, triton=cannot_run)
    assert status == 1
    assert facts['obstacles'] == ["defocus_scan: backend 'triton' cannot run: no GPU"]

    def infinite_gradient(u, **rest):
        return u + (u * 0).abs().sqrt()

    def every_gradient(**tensors):
        y = DEFOCUS_SCAN.implementations['reference'](**tensors)
        return y + infinite_gradient(tensors['u'])

    status, facts = small(monkeypatch, tmp_path, cuda=every_gradient)
    assert status == 1
    assert [label.partition(' (')[0] for label in facts['not_finite']] == ['defocus_scan cuda'] * 2


def test_every_kernel_is_run(monkeypatch):
    """The operators with a CUDA or Triton backend have it under this name in the benchmark."""
    from benchmark_ops import OPERATORS

    named = {
        name for name, operator in OPERATORS.items() if set(small_operators.DTYPES) & set(operator.implementations)
    }
    folders = {path.parent.name for path in (TOOLS.parent / 'mmdefocus' / 'ops').glob('*/triton.py')}
    assert {name.replace('bandpass_attention', 'bandpass') for name in named} >= folders
    assert len(folders) == 4


def test_facts_of_the_machine(monkeypatch):
    facts = machine_facts.machine_facts()
    assert facts['summary'].endswith(f'torch {torch.__version__}')
    assert {'GPU state', 'load', 'torch', 'timm', 'fla', 'backend cuda'} <= facts['lines'].keys()


def test_state_of_the_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert machine_facts.gpu_state() == 'nvidia-smi not found'
    program = tmp_path / 'nvidia-smi'
    values = [str(number) for number in range(len(machine_facts.GPU_FIELDS))]
    program.write_text(f'#!/bin/sh\necho "{", ".join(values)}"\n')
    program.chmod(0o755)
    assert machine_facts.gpu_state().startswith('name 0, driver_version 1, clocks.sm 2, ')
    program.write_text('#!/bin/sh\necho "no devices"\nexit 6\n')
    assert machine_facts.gpu_state() == 'nvidia-smi ended with status 6: no devices'


def test_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_facts, 'ROOT', tmp_path)
    monkeypatch.setenv('GIT_CEILING_DIRECTORIES', str(tmp_path.parent))
    assert machine_facts.commit() == 'unknown (no Git checkout)'
    (tmp_path / 'a').touch()
    for words in ('init -q', 'add a', '-c user.name=a -c user.email=a@b commit -qm a'):
        subprocess.run(['git', *words.split()], cwd=tmp_path, check=True)
    clean = machine_facts.commit()
    assert len(clean) == 12
    (tmp_path / 'b').touch()
    assert machine_facts.commit() == f'{clean}-dirty'
