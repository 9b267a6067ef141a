"""Check and time the operators of mmdefocus.

    python tools/benchmark_ops.py                                         # all operators, on the CPU
    python tools/benchmark_ops.py --device cuda --flat --out docs/benchmarks/2030-01-31-h200.md
    python tools/benchmark_ops.py --ops defocus_scan --shapes 1,512 1,65536 --implementations cpp

The outputs and all gradients of each implementation are first compared with the reference in float64. An implementation
that differs is not timed, and the exit code is 1, unless it belongs to another package. Besides the backends,
alternatives are timed, such as the fused scan as a chain of torch operators around a compiled selective scan. Run
nothing else on the machine meanwhile. docs/benchmarks/README.md explains the columns.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from benchmarking import attention, json_lines, neighbourhood, scans
from benchmarking.machine import Machine, keep_freed_memory
from benchmarking.measurement import Measurement, benchmark
from benchmarking.operator_tables import against_chains, alternatives, flatness, plot, sections, summary
from benchmarking.operators import PASSES, Shape
from benchmarking.report import around_marks, backends, cuda_kernels, dated_report

from mmdefocus.ops.backends import ENVIRONMENT_VARIABLE

OPERATORS = {
    operator.name: operator
    for operator in (
        scans.DEFOCUS_SCAN,
        scans.SELECTIVE_SCAN,
        scans.CAUSAL_CONV1D,
        scans.MIXER,
        attention.BANDPASS_ATTENTION,
        attention.RETENTION,
        neighbourhood.NEIGHBOURHOOD_ATTENTION,
    )
}
DEFAULT_SHAPES = {'cpu': ['1,197', '1,577', '1,4705'], 'cuda': ['64,197', '16,577', '2,4705']}
DEFAULT_DTYPES = {'cpu': ['float32'], 'cuda': ['bfloat16', 'float32']}
FLAT_LENGTHS = (512, 2048, 8192, 32768, 65536)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda or cuda:1')
    parser.add_argument('--ops', nargs='*', choices=OPERATORS, default=list(OPERATORS), help='default: all')
    parser.add_argument('--shapes', nargs='+', metavar='B,L', help='batch and tokens (default: as in training)')
    parser.add_argument('--dtypes', nargs='+', choices=('float32', 'bfloat16', 'float16'), help='default: by device')
    parser.add_argument('--implementations', nargs='+', metavar='NAME', help='default: all that can run')
    parser.add_argument('--channels', type=int, default=1536, help=f'E, a multiple of {scans.GROUP} (default: 1536)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='CPU threads')
    parser.add_argument('--seconds', type=float, default=0.5, help='time to repeat each pass (default: 0.5)')
    parser.add_argument('--flat', action='store_true', help=f'also time per token up to {FLAT_LENGTHS[-1]} tokens')
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='plot the time per token; needs --flat')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='write a dated report to this file')
    parser.add_argument('--cuda-graphs', action='store_true', help='also time each call as a CUDA graph')
    parser.add_argument('--json', type=Path, metavar='FILE.jsonl', help='write each measurement as a line of JSON')
    parser.add_argument('--summary', type=Path, metavar='FILE.md', help='write short tables between its marks')
    arguments = parser.parse_args(argv)
    for name in ('channels', 'threads', 'seconds'):
        if not getattr(arguments, name) > 0:
            parser.error(f'--{name} must be positive, got {getattr(arguments, name)}')
    if arguments.channels % scans.GROUP:
        parser.error(f'--channels must be a multiple of {scans.GROUP}, got {arguments.channels}')
    if ENVIRONMENT_VARIABLE in os.environ:
        parser.error(f'unset {ENVIRONMENT_VARIABLE}: every backend is timed under its own name')
    if arguments.cuda_graphs and not arguments.device.startswith('cuda'):
        parser.error(f'--cuda-graphs needs --device cuda, got {arguments.device}')
    if arguments.plot and not arguments.flat:
        parser.error('--plot needs --flat')
    arguments.device = torch.device(arguments.device)
    kind = arguments.device.type
    if kind not in DEFAULT_SHAPES:
        parser.error(f'--device must be cpu or cuda, got {arguments.device}')
    if kind == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA GPU')
    arguments.dtypes = [getattr(torch, name) for name in arguments.dtypes or DEFAULT_DTYPES[kind]]
    shapes = arguments.shapes or DEFAULT_SHAPES[kind]
    try:
        pairs = [(int(batch), int(length)) for batch, length in (shape.split(',') for shape in shapes)]
    except ValueError:
        pairs = []
    if not pairs or min(map(min, pairs)) < 1:
        parser.error(f'--shapes must be pairs like 1,197, got {" ".join(shapes)}')
    arguments.shapes = [Shape(*pair, arguments.channels) for pair in pairs]
    if arguments.summary:
        try:
            around_marks(arguments.summary)
        except ValueError as error:
            parser.error(f'--summary: {error}')
    return arguments


def run(arguments: argparse.Namespace, machine: Machine) -> tuple[list[Measurement], list[Measurement]]:
    """Return the measurements for the tables and those of the time per token; print each when it is done."""
    found: list[Measurement] = []
    flat: list[Measurement] = []

    def collect(measurements: Iterator[Measurement], into: list[Measurement]) -> None:
        for measurement in measurements:
            print('  '.join((measurement.operator.name, *measurement.cells())), flush=True)
            into.append(measurement)
            json_lines.append(arguments.json, measurement.record())

    for name in arguments.ops:
        for shape in arguments.shapes:
            for dtype in arguments.dtypes:
                collect(benchmark(OPERATORS[name], shape, dtype, arguments.implementations, machine), found)
    for length in FLAT_LENGTHS if arguments.flat else ():
        shape, dtype = Shape(1, length, arguments.channels), arguments.dtypes[0]
        collect(benchmark(scans.DEFOCUS_SCAN, shape, dtype, arguments.implementations, machine, PASSES[:1]), flat)
    return found, flat


def obstacles(arguments: argparse.Namespace) -> dict[tuple[str, str], str]:
    """Return the reason for each operator and implementation that cannot run here, and record it."""
    found = {}
    for operator in (OPERATORS[name] for name in arguments.ops):
        for name, reason in operator.obstacles(arguments.shapes[0], arguments.dtypes[0], arguments.device).items():
            if reason is not None:
                found[operator.name, name] = reason
                json_lines.append(arguments.json, dict(operator=operator.name, implementation=name, obstacle=reason))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False  # TF32 convolutions would exceed the float32 tolerance
    machine = Machine(arguments.device, arguments.seconds, arguments.cuda_graphs)
    if arguments.json:
        json_lines.start(arguments.json, copy_rate=machine.copy_rate, exp_rate=machine.exp_rate)
    description = f'{machine.description()} E = {arguments.channels}, memory order (B, L, E).'
    print(description, flush=True)
    missing = obstacles(arguments)
    found, flat = run(arguments, machine)
    if not found + flat:
        print(f'nothing was timed: no such implementation runs on {arguments.device}\n{backends()}')
        return 1

    comparisons = list(filter(None, [against_chains(found), flatness(flat) if flat else '']))
    heading = ['## Comparisons'] if comparisons else []
    gpu_columns = ['of exp', *['graph ms'] * arguments.cuda_graphs] if arguments.device.type == 'cuda' else []
    tables = [sections(found, gpu_columns), *heading, *comparisons, backends(), alternatives(missing), cuda_kernels()]
    body = '\n'.join(filter(None, tables))
    report = dated_report('Operators', description, body).rstrip() + '\n'
    print('\n' + report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report, encoding='utf-8')
    if arguments.summary:
        before, after = around_marks(arguments.summary)
        text = '\n'.join([f'{description}\n', summary(found), *comparisons])
        arguments.summary.write_text(before + text + after, encoding='utf-8')
    if arguments.plot:
        plot(flat, arguments.plot)
    return int(any(measurement.wrong for measurement in found + flat))


if __name__ == '__main__':
    keep_freed_memory()
    sys.exit(main())
