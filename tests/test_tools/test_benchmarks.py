"""The benchmark tools on tiny shapes: reports are complete, and wrong results or options are rejected."""

import dataclasses
import importlib
import runpy
import time

import pytest
import timm
import torch
from commands import TOOLS, tool
from torch import nn

from mmdefocus.models import MambaMixer
from mmdefocus.ops import available_backends, defocus_scan

TOY_TIMM = {
    'swin_tiny_patch4_window7_224': dict(depths=(1, 1), embed_dim=12, num_heads=(1, 2)),
    'poolformer_s12': {},  # its sizes are fixed
    'deit_tiny_patch16_224': dict(depth=1, embed_dim=12, num_heads=1),
}
DIGITS = TOOLS.parent / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'
TINY = ['--shapes', '2,5', '--channels', '128', '--seconds', '1e-9']
COMPILED = [name for name in ('cpp',) if available_backends()[name] is None]
CHAINS = [f'chain on {name}' for name in COMPILED]
IMPLEMENTATIONS = {
    'defocus_scan': [*COMPILED, 'reference', *CHAINS],
    'selective_scan': [*COMPILED, 'reference'],
    'causal_conv1d': [*COMPILED, 'reference', 'torch'],
    'mixer': [*COMPILED, 'reference', *CHAINS],
    'bandpass_attention': [*COMPILED, 'blocks', 'reference'],
    'retention': [*COMPILED, 'chunkwise', 'reference'],
    'neighbourhood_attention': ['tiles', 'reference'],
}
# The mixer also rounds intermediate results to the half type.
LARGEST_ERROR = {'float32': 1e-5, 'bfloat16': 8 * 2**-8}
PTXAS = """\
ptxas info    : Compiling entry function '_ZN9mmdefocus4cuda12carry_kernelEv' for 'sm_90'
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 42 registers, used 0 barriers
"""


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a module from the folder of the tools."""
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.delenv('MMDEFOCUS_BACKEND', raising=False)
    return importlib.import_module


@pytest.fixture
def ops(load):
    return load('benchmark_ops')


@pytest.fixture
def machine(load):
    return load('benchmarking.machine').Machine(torch.device('cpu'), seconds=1e-9)


def cells(table: str) -> list[list[str]]:
    """Return the rows of all tables in a document, without the rules below the headers."""
    lines = [line.strip('| \n').split('|') for line in table.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line] for line in lines if not set(''.join(line)) <= set(' -:')]


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_report_has_every_operator_implementation_and_pass(ops, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(ops, 'FLAT_LENGTHS', (4, 8))
    monkeypatch.setattr('sys.argv', ['benchmark_ops.py', '--flat'])
    report, document, picture = (tmp_path / name for name in ('new/report.md', 'document.md', 'plot.png'))
    marks = ['<!-- begin of the benchmark -->', '<!-- end of the benchmark -->']
    document.write_text('\n'.join(['before', marks[0], 'old', marks[1], 'after', '']))
    options = ['--flat', '--dtypes', dtype, '--out', report, '--summary', document, '--plot', picture]
    assert ops.main([*TINY, *map(str, options)]) == 0

    text = report.read_text()
    assert '\n    python tools/benchmark_ops.py --flat\n' in text
    for operator, names in IMPLEMENTATIONS.items():
        header, *rows = cells(text.partition(f'## {operator}\n')[2].partition('\n## ')[0])
        assert header[-4:] == ['MB', 'GB/s', 'of copy, exp, mm', 'error']
        assert [row[:2] for row in rows] == [['2, 5', dtype]] * len(rows)
        yardstick = 'SDPA' if operator in ('bandpass_attention', 'retention', 'neighbourhood_attention') else 'exp'
        assert f'({yardstick})' in [row[2] for row in rows]
        assert header[6] == f'/ {yardstick}'
        timed = [row for row in rows if row[2] != f'({yardstick})']
        assert [row[2:4] for row in timed] == [[name, p] for name in names for p in ('forward', 'forward + backward')]
        for row in timed:
            milliseconds, per_token, ratio, error = (float(row[column]) for column in (4, 5, 6, 10))
            assert per_token == pytest.approx(1e3 * milliseconds / (2 * 5), rel=1e-3, abs=0.06)
            assert min(milliseconds, per_token, ratio) > 0
            assert error <= LARGEST_ERROR[dtype]
        peaks = {tuple(row[2:4]): float(row[7]) for row in timed}
        assert all(peaks[name, 'forward'] <= peaks[name, 'forward + backward'] for name in names)
    assert all(f'`{name}`' in text.partition('## Backends')[2] for name in available_backends())

    chains, flat = text.partition('## Comparisons')[2].split('`defocus_scan`, forward, B = 1, µs per token:')
    header, *rows = cells(chains)
    assert header[5:] == ['forward', 'forward + backward', 'memory']
    fused = [f'`{operator}`' for operator in ('defocus_scan', 'mixer') if COMPILED]
    assert [row[:5] for row in rows] == [[name, '2, 5', dtype, 'cpp', 'chain on cpp'] for name in fused]
    assert all(float(cell) > 0 for row in rows for cell in row[5:])

    header, *rows = cells(flat.partition('\n## ')[0])
    assert header == ['implementation', 'L = 4', 'L = 8', 'largest / smallest']
    assert [row[0] for row in rows] == [name for name in IMPLEMENTATIONS['defocus_scan'] if name != 'reference']
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
    assert picture.read_bytes().startswith(b'\x89PNG')

    before, between, after = (part for mark in [document.read_text()] for part in split(mark, marks))
    assert (before, after) == ('before\n', '\nafter\n')
    assert 'old' not in between
    listed = [(row[0], row[3]) for row in cells(between.partition('Speed-up')[0])[1:]]
    assert listed == [(f'`{operator}`', name) for operator, names in IMPLEMENTATIONS.items() for name in names]


def split(text: str, marks: list[str]) -> tuple[str, str, str]:
    before, _, rest = text.partition(marks[0])
    between, _, after = rest.partition(marks[1])
    return before, between, after


def doubled_gate_gradient(z, **tensors):
    return defocus_scan(z=2 * z - z.detach(), **tensors)


@pytest.mark.parametrize(
    ('wrong', 'error'),
    [
        (lambda **tensors: defocus_scan(**tensors) * (1 + 2**-13), '1.2e-04'),
        (lambda **tensors: defocus_scan(**tensors) * float('nan'), 'inf'),
        (doubled_gate_gradient, '1.0e+00'),
    ],
)
def test_wrong_results_and_gradients_are_not_timed(ops, monkeypatch, capsys, wrong, error):
    scan = ops.OPERATORS['defocus_scan']
    implementations = {'wrong': wrong, 'reference': scan.implementations['reference']}
    monkeypatch.setitem(ops.OPERATORS, scan.name, dataclasses.replace(scan, implementations=implementations))
    assert ops.main([*TINY, '--ops', scan.name]) == 1
    errors, reference_passes = {}, []
    for row in cells(capsys.readouterr().out):
        errors.update({row[3]: row[-1]} if row[2] == 'wrong' else {})
        reference_passes += [row[3]] if row[2] == 'reference' else []
    assert errors == {'NOT TIMED: error above 1.0e-05': error}
    assert reference_passes == ['forward', 'forward + backward']


def test_long_attention_is_checked_against_the_proxy(load, monkeypatch):
    """Errors beyond the part that fits the reference are found by comparison with the float64 blocks."""
    attention, operators = load('benchmarking.attention'), load('benchmarking.operators')
    monkeypatch.setattr(attention, 'MOST_PAIRS', 16)
    blocks = attention.BANDPASS_ATTENTION.implementations['blocks']

    def wrong_at_the_end(**tensors):
        return torch.cat([(y := blocks(**tensors))[:, :, :4], y[:, :, 4:] * 1.01], dim=2)

    shape, cpu = operators.Shape(2, 6, 256), torch.device('cpu')
    assert attention.fewer_queries(shape) == (1, 4, 128)
    for operator in (attention.BANDPASS_ATTENTION, attention.RETENTION):
        check = operators.Check(operator, shape, torch.float32, type('', (), {'device': cpu}), 'forward + backward')
        assert not check.whole
        assert check.expected[0].shape[:3] == (2, 2, 6)
        assert check.error(operator.implementations[operator.proxy]) < check.tolerance(operator.proxy)
        if operator is attention.BANDPASS_ATTENTION:
            assert check.error(wrong_at_the_end) > 1e-3


def test_neighbourhood_attention_has_the_dense_attention_of_torch_as_its_yardstick(load, machine, monkeypatch):
    cases, shape = load('benchmarking.neighbourhood'), load('benchmarking.operators').Shape
    assert [cases.map_size(shape(1, length, 64)) for length in (1, 197, 577)] == [(7, 7), (14, 14), (24, 24)]
    assert cases.fewer_heads(shape(64, 197, 1536)) == (18, 197, 1536)
    assert cases.fewer_heads(shape(2, 4000, 1536)) == (1, 4000, 64)
    assert cases.fewer_heads(shape(2, 40000, 1536)) == (1, 4096, 64)
    tensors = cases.make(shape(2, 90, 128), torch.float32, torch.device('cpu'))
    expected = cases.NEIGHBOURHOOD_ATTENTION.implementations['reference'](**tensors)
    torch.testing.assert_close(cases.dense_attention(**tensors), expected)
    monkeypatch.setattr(cases, 'MOST_PAIRS', 49**2)
    monkeypatch.setattr(machine, 'best_seconds', lambda function: 1.0)
    seconds = cases.sdpa_seconds(machine, shape(3, 49, 128), torch.float32)
    assert seconds == {'forward': 6.0, 'forward + backward': 6.0}


def test_reference_of_scans_fits_into_memory(load):
    scans, shape = load('benchmarking.scans'), load('benchmarking.operators').Shape
    assert scans.fewer_groups(shape(1, 4705, 1536)) == (1, 4705, 1536)
    assert scans.fewer_groups(shape(1, 65536, 1536)) == (1, 65536, 128)
    assert scans.fewer_groups(shape(64, 197, 1536)) == (27, 197, 1536)
    assert scans.fewer_groups(shape(3, 10**9, 64)) == (1, 10**9, 64)


def test_phases_are_exact_in_float32(load):
    """Rounded phases would mask the errors of an implementation."""
    freq = load('benchmarking.scans').frequencies(16, device=torch.device('cpu'))
    positions = torch.arange(65536.0)
    assert torch.equal(torch.outer(positions, freq).double(), torch.outer(positions.double(), freq.double()))


def test_tolerances_equal_those_of_the_operator_tests(load):
    tested = runpy.run_path(str(TOOLS.parent / 'tests' / 'test_ops' / 'tolerances.py'))
    single = torch.float32
    assert tested['FORWARD'][single] == tested['GRADIENT'][single]
    assert {single: tested['FORWARD'][single], **tested['HALF']} == load('benchmarking.operators').TOLERANCES


def test_mixer_equals_that_of_the_models(load):
    scans = load('benchmarking.scans')
    module = MambaMixer(32, 128, scans.STATE, scans.KERNEL_WIDTH, scans.DT_RANK, scans.GROUP)
    x, positions = torch.randn(2, 9, 32), torch.arange(9.0)
    u, z = module.in_proj(x).chunk(2, dim=-1)
    y = scans.MIXER.implementations['reference'](
        u=u,
        z=z,
        conv_weight=module.conv1d.weight.squeeze(1),
        conv_bias=module.conv1d.bias,
        x_proj=module.x_proj.weight,
        dt_proj=module.dt_proj.weight,
        dt_bias=module.dt_proj.bias,
        A_log=module.A_log,
        D=module.D,
        freq=module.freq,
        positions=positions,
    )
    torch.testing.assert_close(module.out_proj(y), module(x, positions, 1.0), rtol=1e-4, atol=1e-6)


def test_peak_memory(machine):
    def function():
        first = torch.ones(2**20)
        second = first + 1
        del first
        return second + 1

    assert machine.peak_bytes(function) == pytest.approx(2 * 4 * 2**20, rel=1e-3)


def test_number_of_runs(machine):
    calls = []
    machine.best_seconds(lambda: calls.append(time.sleep(0.001)))
    assert len(calls) == 1, 'a warm-up run longer than the time limit is the only run'
    machine.seconds = 0.5
    calls.clear()
    machine.best_seconds(lambda: calls.append(time.sleep(0.2)), at_least=5)
    assert len(calls) == 6


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--shapes', '5'], '--shapes must be pairs like 1,197, got 5'),
        (['--shapes', '0,5'], '--shapes must be pairs like 1,197, got 0,5'),
        (['--channels', '100'], '--channels must be a multiple of 64, got 100'),
        (['--seconds', '0'], '--seconds must be positive, got 0.0'),
        (['--plot', 'a.png'], '--plot needs --flat'),
        (['--device', 'meta'], '--device must be cpu or cuda, got meta'),
        (['--summary', 'none.md'], "--summary: 'none.md' has no lines '<!-- begin of the benchmark -->' and"),
    ],
)
def test_wrong_options_raise_before_anything_is_timed(ops, capsys, arguments, message):
    with pytest.raises(SystemExit, match='2'):
        ops.main(arguments)
    assert message in capsys.readouterr().err


def test_forced_backend_is_rejected_by_the_tool_and_named_in_reports(ops, load, monkeypatch, capsys):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    with pytest.raises(SystemExit, match='2'):
        ops.main(TINY)
    assert 'unset MMDEFOCUS_BACKEND: every backend is timed under its own name' in capsys.readouterr().err
    assert '\n- `MMDEFOCUS_BACKEND=reference`\n' in load('benchmarking.report').backends()


def test_without_a_gpu(load, tmp_path, capsys):
    message = '--device cuda: torch finds no CUDA GPU'
    assert message in tool(tmp_path, 'benchmark_ops.py', '--device', 'cuda', code=2)
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match='2'):
            load('benchmark').main(['--device', 'cuda'])
        assert message in capsys.readouterr().err


def test_reasons_are_printed_when_no_implementation_can_run(ops, capsys):
    assert ops.main([*TINY, '--ops', 'causal_conv1d', '--implementations', 'mamba_ssm']) == 1
    printed = capsys.readouterr().out
    assert 'nothing was timed: no such implementation runs on cpu\n## Backends\n- `cuda`: ' in printed


def test_registers_of_the_cuda_kernels_are_reported(load, tmp_path, monkeypatch):
    report, log = load('benchmarking.report'), tmp_path / 'compile.log'
    monkeypatch.setattr(report, 'LOG', log)
    assert report.cuda_kernels() == ''
    log.write_text(PTXAS)
    assert cells(report.cuda_kernels())[1] == ['carry_kernel', 'sm_90', '42', '12 / 16']


def test_docs_have_marks_for_the_summary(load):
    before, after = load('benchmarking.report').around_marks(TOOLS.parent / 'docs' / 'operators.md')
    assert 'benchmark_ops.py' in before
    assert after


def test_networks_in_inference_and_training(load, tmp_path):
    report = tmp_path / 'new' / 'report.md'
    networks = ['--networks', str(DIGITS), 'timm:vit_tiny_patch16_224']
    options = ['--side', '32', '--batch', '1', '--seconds', '1e-9', '--out', str(report)]
    assert load('benchmark').main([*networks, *options]) == 0
    text = report.read_text()
    header, *rows = cells(text)
    assert header[1:] == [
        'parameters',
        *(f'{s} {unit}' for s in ('inference', 'training') for unit in ('images/s', 'GB')),
    ]
    assert [row[0] for row in rows] == [DIGITS.stem, 'timm:vit_tiny_patch16_224']
    assert rows[1][1] == '5.7M'
    assert all(float(row[column]) > 0 for row in rows for column in (2, 4)), 'images per second'
    # The parameters take 22 MB; training adds gradients and the two moments of AdamW.
    assert float(rows[1][5]) > 3 * float(rows[1][3]) > 0.05
    assert 'Batch 1, 32 x 32 pixels, float32' in text


def test_networks_in_turns_with_the_parts_of_their_steps(load, capsys):
    benchmark = load('benchmark')
    networks = [str(DIGITS), str(DIGITS.with_name('defocus_vit_nano_digits.py'))]
    options = ['--side', '32', '--batch', '1', '--seconds', '1e-9', '--turns', '2', '--profile']
    assert benchmark.main(['--networks', *networks, *options]) == 0
    mamba, vit = (path.rpartition('/')[2].removesuffix('.py') for path in networks)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith('turn')] == [
        f'turn {turn} of 2: {name}' for turn in (1, 2) for name in (mamba, vit)
    ]
    header, *rows = cells(out.partition('## Parts of a step')[2])
    assert [(row[0], row[1]) for row in rows] == [
        (mamba, 'inference'),
        (mamba, 'training'),
        (vit, 'inference'),
        (vit, 'training'),
    ]
    for row in (dict(zip(header, row, strict=True)) for row in rows):
        assert float(row['ms']) == pytest.approx(sum(float(row[name]) for name in header[3:]), abs=0.05)
        assert all(float(row[name]) > 0 for name in ('products', 'token mixing', 'norms, activations', 'rest'))
        assert (float(row['causal convolution']) > 0) == (row['network'] == mamba)
        assert (float(row['optimiser']) > 0) == (row['step'] == 'training')


def test_operators_belong_to_the_parts_of_their_names(load):
    part_of = load('benchmarking.network_profile').part_of
    parts = {
        'products': ('aten::mm', 'aten::addmm', 'aten::bmm', 'aten::mkldnn_convolution', 'aten::convolution_backward'),
        'token mixing': (
            'mmdefocus::defocus_scan_backward',
            'mmdefocus::fused_retention',
            'aten::_scaled_dot_product_flash_attention_for_cpu',
        ),
        'causal convolution': ('mmdefocus::causal_conv1d',),
        'norms, activations': ('mmdefocus::rms_norm', 'aten::native_layer_norm', 'aten::gelu_backward'),
        'copies': ('aten::copy_', 'aten::cat'),
        'rest': ('aten::add', 'aten::sum', 'aten::empty'),
    }
    assert {part: tuple(name for name in names if part_of(name) == part) for part, names in parts.items()} == parts


def test_only_networks_that_are_built_for_a_size_are_told_the_side(load, monkeypatch):
    """FCViT and PoolFormer know none, and that of DAT determines the sizes of tables."""
    benchmark = load('benchmark')
    configs = {name: str(DIGITS.with_name(f'{name}_nano_digits.py')) for name in ('defocus_vit', 'fcvit', 'dat')}
    vit, fcvit, dat = (benchmark.load(path, 96).module.backbone for path in configs.values())
    assert vit.img_size == (96, 96)
    assert not hasattr(fcvit, 'img_size')
    assert dat.img_size == 64, 'that of the config'

    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda name, **options: create(name, **TOY_TIMM[name], **options))
    for name in TOY_TIMM:
        network = benchmark.load(f'timm:{name}', 96)
        assert network.logits(torch.randn(1, 3, 96, 96)).shape == (1, 1000)
    assert (
        load('benchmark').main(
            ['--networks', *configs.values(), *(f'timm:{name}' for name in TOY_TIMM), '--side', '96', '--batch', '1']
            + ['--seconds', '1e-9']
        )
        == 0
    )


@pytest.mark.parametrize(
    ('defect', 'message'),
    [
        ('nan', 'logits that are not finite'),
        ('loss', 'a loss that is not finite'),
        ('unused', 'no gradient of 1.weight'),
        ('gradient', 'a gradient of 0.weight that is not finite'),
    ],
)
def test_broken_networks_are_not_timed(load, monkeypatch, capsys, defect, message):
    benchmark = load('benchmark')
    module = nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 2))

    def logits(images):
        y = module[0](images.flatten(1)[:, :8])
        return y * float('nan') if defect == 'nan' else (y if defect == 'unused' else module[1](y))

    def loss(images):
        y = logits(images).sum()
        return {'loss': y * float('inf'), 'gradient': y + (module[0].weight * 0).abs().sqrt().sum()}.get(defect, y)

    monkeypatch.setattr(benchmark, 'load', lambda *_: benchmark.Network(module, logits, lambda labels: loss))
    assert benchmark.main(['--networks', str(DIGITS), '--side', '32', '--seconds', '1e-9']) == 1
    assert f'NOT TIMED: {message}' in capsys.readouterr().out
