"""Time the operators of mmdefocus, after checking their numbers.

    python tools/benchmark_ops.py                                         # all operators, on the CPU
    python tools/benchmark_ops.py --device cuda --flat --out docs/benchmarks/2030-01-31-h200.md
    python tools/benchmark_ops.py --ops defocus_scan --shapes 1,512 1,65536 --implementations cpp

Every implementation is first compared with the reference in float64, outputs and all gradients, and is not timed when
it differs; the exit code is 1 then. Besides the backends there are named alternatives, such as the fused scan as a chain
of torch operators around a compiled selective scan. Nothing else should run on the machine meanwhile.
docs/benchmarks/README.md explains the columns.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from benchmarking import attention, scans
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Check, Operator, Shape, forward, forward_backward
from benchmarking.report import backends, cuda_kernels, dated_report, table, write_between_marks

from mmdefocus.ops import available_backends

OPERATORS = {
    operator.name: operator
    for operator in (
        scans.DEFOCUS_SCAN,
        scans.SELECTIVE_SCAN,
        scans.CAUSAL_CONV1D,
        scans.MIXER,
        attention.BANDPASS_ATTENTION,
        attention.RETENTION,
    )
}
DEFAULT_SHAPES = {'cpu': ['1,197', '1,577', '1,4705'], 'cuda': ['64,197', '16,577', '2,4705']}
DEFAULT_DTYPES = {'cpu': ['float32'], 'cuda': ['bfloat16', 'float32']}
FLAT_LENGTHS = (512, 2048, 8192, 32768, 65536)


@dataclass(frozen=True, eq=False)
class Measurement:
    """One pass of one implementation; without seconds where it was refused."""

    operator: Operator
    shape: Shape
    dtype: str
    implementation: str
    passes: str
    error: float
    allowed: float
    yardstick: float = float('nan')
    seconds: float | None = None
    peak: int = 0
    moved: int = 0
    needed: float = 0.0

    @property
    def label(self) -> tuple[str, ...]:
        return f'{self.shape.batch}, {self.shape.length}', self.dtype, self.implementation

    @property
    def microseconds_per_token(self) -> float:
        assert self.seconds is not None
        return self.seconds * 1e6 / self.shape.batch / self.shape.length

    def yardstick_cells(self) -> tuple[str, ...]:
        per_token = self.yardstick * 1e6 / self.shape.batch / self.shape.length
        name, figures = f'({self.operator.yardstick[0]})', (f'{self.yardstick * 1e3:.3f}', f'{per_token:.2f}', '1.00')
        return (*self.label[:2], name, self.passes, *figures, '', '', '', '')

    def cells(self) -> tuple[str, ...]:
        if self.seconds is None:
            refused = f'NOT TIMED: error above {self.allowed:.1e}'
            return (*self.label, refused, *[''] * 6, f'{self.error:.1e}')
        return (
            *self.label,
            self.passes,
            f'{self.seconds * 1e3:.3f}',
            f'{self.microseconds_per_token:.2f}',
            f'{self.seconds / self.yardstick:.2f}',
            f'{self.peak / 1e6:.1f}',
            f'{self.moved / self.seconds / 1e9:.1f}',
            f'{self.needed / self.seconds:.0%}',
            f'{self.error:.1e}',
        )


def benchmark(
    operator: Operator,
    shape: Shape,
    dtype: torch.dtype,
    names: Sequence[str] | None,
    machine: Machine,
    passes: Sequence[str] = PASSES,
) -> Iterator[Measurement]:
    """Check and time the implementations of one operator for one shape and type.

    Args:
        names: Which of them; None for all. The reference is timed only where all of the shape is compared with it.
        passes: Which of :data:`PASSES`. For results alone the reference is not timed either.
    """
    check = Check(operator, shape, dtype, machine, passes[-1])
    tensors = operator.make(shape, dtype, machine.device)
    yardsticks = operator.yardstick[1](machine, shape, dtype)
    for name, function in operator.runnable(shape, dtype, machine.device).items():
        if names is not None and name not in names:
            continue
        if name == 'reference' and (passes != PASSES or not check.whole):
            continue
        begin = partial(Measurement, operator, shape, str(dtype).removeprefix('torch.'), name)
        error, allowed = check.error(function), check.allowed(name)
        if not error <= allowed:
            yield begin('', error, allowed)
            continue
        incoming = torch.randn_like(tensors[operator.like])
        runs = dict(
            zip(
                PASSES,
                (partial(forward, function, tensors), partial(forward_backward, function, tensors, incoming)),
                strict=True,
            )
        )
        for which in passes:
            exponentials, matrix_flops = operator.exponentials(shape), operator.matrix_flops(shape)
            if which != 'forward':  # which computes the exponentials again, and two products for each
                exponentials, matrix_flops = 2 * exponentials, 3 * matrix_flops
            moved = operator.bytes_moved(tensors, which)
            yield begin(
                which,
                error,
                allowed,
                yardsticks[which],
                machine.best_seconds(runs[which]),
                machine.peak_bytes(runs[which]),
                moved,
                machine.least_seconds(moved, exponentials, matrix_flops, dtype),
            )


def sections(found: Sequence[Measurement]) -> str:
    """A full table for every operator, with the yardsticks as rows of their own."""
    parts = []
    for operator in dict.fromkeys(measurement.operator for measurement in found):
        rows: dict[object, tuple[str, ...]] = {}
        for measurement in (m for m in found if m.operator is operator):
            if measurement.seconds is not None:
                rows.setdefault((*measurement.label[:2], measurement.yardstick), measurement.yardstick_cells())
            rows[measurement] = measurement.cells()
        ratio = f'/ {operator.yardstick[0]}'
        header = (
            'B, L',
            'type',
            'implementation',
            'pass',
            'ms',
            'µs / token',
            ratio,
            'MB',
            'GB/s',
            'of limit',
            'error',
        )
        parts += [f'## {operator.name}', operator.meaning, '', table(header, list(rows.values())), '']
    return '\n'.join(parts)


def summary(found: Sequence[Measurement]) -> str:
    """One short table of all operators."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for measurement in found:
        cells = rows.setdefault((f'`{measurement.operator.name}`', *measurement.label), ['', ''])
        if measurement.seconds is not None:
            ratio = f'{measurement.seconds / measurement.yardstick:.2f} {measurement.operator.yardstick[0]}'
            cells[PASSES.index(measurement.passes)] = f'{measurement.seconds * 1e3:.2f} ({ratio})'
    header = ('operator', 'B, L', 'type', 'implementation', *(f'{passes}, ms' for passes in PASSES))
    return table(header, [(*label, *cells) for label, cells in rows.items()]) + '\n'


def flatness(found: Sequence[Measurement]) -> str:
    """Time per token against L."""
    rows = []
    for name in dict.fromkeys(measurement.implementation for measurement in found):
        times = {m.shape.length: m.microseconds_per_token for m in found if m.implementation == name and m.seconds}
        cells = [f'{times[length]:.2f}' if length in times else '' for length in FLAT_LENGTHS]
        ratio = f'{max(times.values()) / min(times.values()):.2f}' if len(times) > 1 else ''
        rows.append((name, *cells, ratio))
    header = ('implementation', *(f'L = {length}' for length in FLAT_LENGTHS), 'largest / smallest')
    return f'`defocus_scan`, forward, B = 1, µs per token:\n\n{table(header, rows)}\n'


def plot(found: Sequence[Measurement], path: Path) -> None:
    """Draw the time per token against L."""
    from matplotlib.figure import Figure  # needed for pictures alone

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for name in dict.fromkeys(measurement.implementation for measurement in found):
        of_it = [m for m in found if m.implementation == name and m.seconds is not None]
        axes.loglog([m.shape.length for m in of_it], [m.microseconds_per_token for m in of_it], marker='o', label=name)
    axes.set(xlabel='tokens L', ylabel='µs per token, forward', title='defocus_scan, batch 1')
    axes.set_xticks(FLAT_LENGTHS, [f'{length:,}' for length in FLAT_LENGTHS], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which='both')
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda or cuda:1')
    parser.add_argument('--ops', nargs='*', choices=OPERATORS, default=list(OPERATORS), help='default: all')
    parser.add_argument('--shapes', nargs='+', metavar='B,L', help='images and tokens (default: as in training)')
    parser.add_argument('--dtypes', nargs='+', choices=('float32', 'bfloat16', 'float16'), help='default: by device')
    parser.add_argument('--implementations', nargs='+', metavar='NAME', help='default: all that can run')
    parser.add_argument('--channels', type=int, default=1536, help=f'E, a multiple of {scans.GROUP} (default: 1536)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seconds', type=float, default=0.5, help='how long each is repeated (default: 0.5)')
    parser.add_argument('--flat', action='store_true', help=f'also time per token up to {FLAT_LENGTHS[-1]} tokens')
    parser.add_argument('--plot', type=Path, metavar='FILE.png', help='draw time per token; with --flat')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='write a dated report to this file')
    parser.add_argument('--summary', type=Path, metavar='FILE.md', help='write short tables between the marks of this')
    arguments = parser.parse_args(argv)
    for name in ('channels', 'threads', 'seconds'):
        if not getattr(arguments, name) > 0:
            parser.error(f'--{name} must be positive, got {getattr(arguments, name)}')
    if arguments.channels % scans.GROUP:
        parser.error(f'--channels must be a multiple of {scans.GROUP}, got {arguments.channels}')
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
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False  # or its convolutions would not be those of float32
    machine = Machine(arguments.device, arguments.seconds)
    description = f'{machine.description()} E = {arguments.channels}, memory order (B, L, E).'
    print(description, flush=True)

    def collect(measurements: Iterator[Measurement], into: list[Measurement]) -> None:
        for measurement in measurements:
            print('  '.join((measurement.operator.name, *measurement.cells())), flush=True)
            into.append(measurement)

    found: list[Measurement] = []
    flat: list[Measurement] = []
    for name in arguments.ops:
        for shape in arguments.shapes:
            for dtype in arguments.dtypes:
                collect(benchmark(OPERATORS[name], shape, dtype, arguments.implementations, machine), found)
    for length in FLAT_LENGTHS if arguments.flat else ():
        shape = Shape(1, length, arguments.channels)
        scan, dtype = OPERATORS['defocus_scan'], arguments.dtypes[0]
        collect(benchmark(scan, shape, dtype, arguments.implementations, machine, PASSES[:1]), flat)

    if not found + flat:
        print('nothing was timed: ' + '; '.join(f'{name}: {why}' for name, why in available_backends().items() if why))
        return 1
    flat_section = f'## Time per token\n{flatness(flat)}\n' if flat else ''
    report = dated_report(
        'Operators', description, sections(found) + '\n' + flat_section + backends() + '\n' + cuda_kernels()
    )
    print('\n' + report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report.rstrip() + '\n', encoding='utf-8')
    if arguments.summary:
        text = f'{description}\n\n{summary(found)}' + (f'\n{flatness(flat)}' if flat else '')
        write_between_marks(text, arguments.summary)
    if arguments.plot:
        plot(flat, arguments.plot)
    return int(any(measurement.seconds is None for measurement in found + flat))


if __name__ == '__main__':
    sys.exit(main())
