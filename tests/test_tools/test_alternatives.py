"""Implementations of other packages in the operator benchmark: the same mathematics, reasons, errors, records."""

import dataclasses
import json
import sys

import pytest
import torch
from benchmarking import fla, json_lines
from benchmarking.attention import BANDPASS_ATTENTION, RETENTION
from benchmarking.operators import Shape, forward_backward, largest_error

CPU = torch.device('cpu')
TINY = ['--shapes', '2,5', '--channels', '128', '--seconds', '1e-9']


def gated_linear_attention(q, k, v, g):
    """Compute what ``chunk_gla`` documents, token by token; tensors are (B, L, H, ·)."""
    state, outputs = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3]), []
    for t in range(q.shape[1]):
        state = state * g[:, t].to(q.dtype).exp()[..., None] + k[:, t][..., None] * v[:, t][..., None, :]
        outputs.append(torch.einsum('bhk,bhkv->bhv', q[:, t] * q.shape[-1] ** -0.5, state))
    return torch.stack(outputs, dim=1), None


def gated_attention(q, k, v, g):
    """Compute what ``parallel_wall_attn`` documents: softmax over Σ q k exp(P_i - P_j), P the running sum of g."""
    sums = g.to(q.dtype).cumsum(1)
    logits = torch.einsum('bihk,bjhk->bhij', q * sums.exp() * q.shape[-1] ** -0.5, k * (-sums).exp())
    mask = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril()
    return torch.einsum('bhij,bjhv->bihv', logits.masked_fill(~mask, -torch.inf).softmax(-1), v)


@pytest.fixture
def kernels(monkeypatch):
    stand_ins = {'chunk_gla': gated_linear_attention, 'parallel_wall_attn': gated_attention}
    monkeypatch.setattr(fla, '_kernel', lambda package, name, q: stand_ins[name])


@pytest.fixture
def ops(monkeypatch):
    monkeypatch.delenv('MMDEFOCUS_BACKEND', raising=False)
    import benchmark_ops

    return benchmark_ops


@pytest.mark.parametrize('operator', [BANDPASS_ATTENTION, RETENTION], ids=lambda operator: operator.name)
def test_flash_linear_attention_gets_the_same_problem(kernels, operator):
    tensors = operator.make(Shape(2, 9, 256), torch.float32, CPU)
    grad_output = torch.randn_like(tensors['v'])
    names = ('fla', 'reference')
    actual, expected = (forward_backward(operator.implementations[n], tensors, grad_output) for n in names)
    assert len(actual) == 6, 'the result and the gradients of q, k, v, decay and freq'
    assert largest_error(actual, [x.double() for x in expected]) < 1e-5


def test_missing_packages_are_listed_with_the_reason(ops, capsys):
    assert ops.main([*TINY, '--ops', 'retention', 'mixer']) == 0
    listed = capsys.readouterr().out.partition('## Alternatives that cannot run\n')[2].splitlines()
    assert listed[0] == (
        "- `retention`, `fla`: backend 'fla' cannot run: its kernels run on CUDA tensors, got tensors on cpu"
    )
    assert listed[1].startswith("- `mixer`, `chain on mamba_ssm`: backend 'mamba_ssm' cannot run: ")


def test_a_package_that_is_not_installed_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fla', None)
    on_gpu = type('OnGpu', (), {'device': torch.device('cuda')})()
    with pytest.raises(RuntimeError, match=r"^backend 'fla' cannot run: .*\"pip install flash-linear-attention\""):
        fla._kernel('gla', 'chunk_gla', on_gpu)


def raising(**tensors):
    if tensors['q'].shape[2] > 1:
        raise ValueError('no such tile\nmore')
    return tensors['v']


def doubled(**tensors):
    return 2 * RETENTION.implementations['chunkwise'](**tensors)


@pytest.mark.parametrize('foreign', [raising, doubled])
def test_errors_of_other_packages_are_reported_but_do_not_fail_the_run(ops, monkeypatch, capsys, tmp_path, foreign):
    implementations = {'fla': foreign, 'reference': RETENTION.implementations['reference']}
    changed = dataclasses.replace(RETENTION, implementations=implementations)
    monkeypatch.setitem(ops.OPERATORS, 'retention', changed)
    assert ops.main([*TINY, '--ops', 'retention', '--json', str(tmp_path / 'x.jsonl')]) == 0
    printed = capsys.readouterr().out
    assert 'NOT TIMED: error above 1.0e-05' in printed
    assert ('retention fla: ValueError: no such tile' in printed) == (foreign is raising)
    records = json_lines.read(tmp_path / 'x.jsonl')[1:]
    assert [record['implementation'] for record in records] == ['fla', 'reference', 'reference']
    assert 'seconds' not in records[0]

    own = dataclasses.replace(changed, foreign=())
    monkeypatch.setitem(ops.OPERATORS, 'retention', own)
    if foreign is raising:
        with pytest.raises(ValueError, match='no such tile'):
            ops.main([*TINY, '--ops', 'retention'])
    else:
        assert ops.main([*TINY, '--ops', 'retention']) == 1


def test_records_have_what_the_table_has(ops, tmp_path, capsys):
    path = tmp_path / 'new' / 'x.jsonl'
    assert ops.main([*TINY, '--ops', 'defocus_scan', '--implementations', 'reference', '--json', str(path)]) == 0
    header, *records = json_lines.read(path)
    (cuda,) = (record for record in records if record['implementation'] == 'cuda')
    assert cuda['obstacle'].startswith("backend 'cuda' cannot run: ")
    records = [record for record in records if 'obstacle' not in record]
    assert header['exp_rate'] > 0
    assert header['copy_rate'] > 0
    row = next(line.split('|') for line in capsys.readouterr().out.splitlines() if '| reference ' in line)
    first = records[0]
    assert (first['operator'], first['batch'], first['length'], first['channels']) == ('defocus_scan', 2, 5, 128)
    assert (first['dtype'], first['implementation'], first['passes']) == ('float32', 'reference', 'forward')
    assert f'{first["seconds"] * 1e3:.3f}' == row[5].strip()
    assert f'{first["peak"] / 1e6:.1f}' == row[8].strip()
    assert f'{first["of_exp"]:.0%}' in row[10]
    assert first['graph_seconds'] is None


def test_networks_are_recorded(tmp_path, monkeypatch):
    import benchmark

    path = tmp_path / 'networks.jsonl'
    options = ['--networks', 'timm:vit_tiny_patch16_224', '--side', '32', '--batch', '1', '--seconds', '1e-9']
    assert benchmark.main([*options, '--json', str(path)]) == 0
    header, record = json_lines.read(path)
    assert header == {'batch': 1, 'side': 32, 'dtype': 'torch.float32'}
    assert record['network'] == 'timm:vit_tiny_patch16_224'
    assert record['inference'] > record['training'] > 0
    assert record['training_bytes'] > record['inference_bytes'] > 2e7
    monkeypatch.setattr(benchmark.Steps, 'defect', lambda self: 'logits that are not finite')
    assert benchmark.main([*options, '--json', str(path)]) == 1
    assert json_lines.read(path)[1]['defect'] == 'logits that are not finite'


def test_lines_are_json_and_a_cut_line_is_left_out(tmp_path):
    path = tmp_path / 'x.jsonl'
    assert json_lines.read(path) == []
    json_lines.start(path, rate=float('inf'))
    json_lines.append(path, {'error': float('nan'), 'name': 'a'})
    assert path.read_text() == '{"rate": null}\n{"error": null, "name": "a"}\n'
    with path.open('a') as file:
        file.write(json.dumps({'seconds': 1})[:5])
    assert json_lines.read(path) == [{'rate': None}, {'error': None, 'name': 'a'}]


def test_graphs_need_a_gpu(ops, capsys):
    with pytest.raises(SystemExit, match='2'):
        ops.main(['--cuda-graphs'])
    assert '--cuda-graphs needs --device cuda, got cpu' in capsys.readouterr().err
