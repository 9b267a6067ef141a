"""Format measurements of operators as tables and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarking.measurement import COLUMNS, GPU_COLUMNS, MORE_COLUMNS, Measurement
from benchmarking.operators import PASSES
from benchmarking.report import table

from mmdefocus.ops.backends import BACKENDS


def sections(found: Sequence[Measurement], gpu_columns: Sequence[str] = ()) -> str:
    """Format one table per operator, with a row for each yardstick.

    Args:
        found: Measurements of all operators.
        gpu_columns: Further columns, of :data:`GPU_COLUMNS`.
    """
    parts = []
    for operator in dict.fromkeys(measurement.operator for measurement in found):
        rows: dict[object, tuple[str, ...]] = {}
        for measurement in (m for m in found if m.operator is operator):
            if measurement.seconds is not None:
                yardstick = (*measurement.yardstick_cells(), *[''] * len(gpu_columns))
                rows.setdefault((*measurement.label[:2], measurement.yardstick), yardstick)
            rows[measurement] = (*measurement.cells(), *(GPU_COLUMNS[name](measurement) for name in gpu_columns))
        header = (*COLUMNS, f'/ {operator.yardstick[0]}', *MORE_COLUMNS, *gpu_columns)
        parts += [f'## {operator.name}', operator.description, '', table(header, list(rows.values())), '']
    return '\n'.join(parts)


def alternatives(obstacles: Mapping[tuple[str, str], str]) -> str:
    """List the alternatives that cannot run, with the reasons; backends have a section of their own.

    Args:
        obstacles: Reasons by operator and implementation.
    """
    lines = [f'- `{op}`, `{name}`: {reason}' for (op, name), reason in obstacles.items() if name not in BACKENDS]
    return '\n'.join(['## Alternatives that cannot run', *lines, '']) if lines else ''


def summary(found: Sequence[Measurement]) -> str:
    """Format one short table of all operators."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for measurement in found:
        cells = rows.setdefault((f'`{measurement.operator.name}`', *measurement.label), ['', ''])
        if measurement.seconds is not None:
            ratio = f'{measurement.seconds / measurement.yardstick:.2f} {measurement.operator.yardstick[0]}'
            cells[PASSES.index(measurement.passes)] = f'{measurement.seconds * 1e3:.2f} ({ratio})'
    header = ('operator', 'B, L', 'type', 'implementation', *(f'{passes}, ms' for passes in PASSES))
    return table(header, [(*label, *cells) for label, cells in rows.items()]) + '\n'


def against_chains(found: Sequence[Measurement]) -> str:
    """Format speed-up and relative memory against each chain of torch operators; empty if no chain was timed."""
    timed = [measurement for measurement in found if measurement.seconds is not None]
    rows: dict[tuple[str, ...], list[str]] = {}
    for fast in timed:
        chains = [m for m in timed if m.implementation.startswith('chain') and m.same_work(fast)]
        for chain in chains if fast not in chains and fast.implementation != 'reference' else ():
            label = (f'`{fast.operator.name}`', *fast.label, chain.implementation)
            cells = rows.setdefault(label, [''] * 3)
            cells[PASSES.index(fast.passes)] = f'{chain.seconds / fast.seconds:.2f}'
            cells[2] = f'{fast.peak / chain.peak:.2f}'
    if not rows:
        return ''
    header = ('operator', 'B, L', 'type', 'implementation', 'against', *PASSES, 'memory')
    lines = table(header, [(*label, *cells) for label, cells in rows.items()])
    return f'Speed-up over a chain, and peak memory with the backward pass relative to it:\n\n{lines}\n'


def flatness(found: Sequence[Measurement]) -> str:
    """Format the time per token by sequence length."""
    lengths = sorted({measurement.shape.length for measurement in found})
    rows = []
    for name in dict.fromkeys(measurement.implementation for measurement in found):
        times = {m.shape.length: m.microseconds_per_token for m in found if m.implementation == name and m.seconds}
        cells = [f'{times[length]:.2f}' if length in times else '' for length in lengths]
        ratio = f'{max(times.values()) / min(times.values()):.2f}' if len(times) > 1 else ''
        rows.append((name, *cells, ratio))
    header = ('implementation', *(f'L = {length}' for length in lengths), 'largest / smallest')
    return f'`defocus_scan`, forward, B = 1, µs per token:\n\n{table(header, rows)}\n'


def plot(found: Sequence[Measurement], path: Path) -> None:
    """Plot the time per token by sequence length."""
    from matplotlib.figure import Figure  # an optional dependency, needed only for plots

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for name in dict.fromkeys(measurement.implementation for measurement in found):
        timed = [m for m in found if m.implementation == name and m.seconds is not None]
        axes.semilogx(
            [m.shape.length for m in timed], [m.microseconds_per_token for m in timed], marker='o', label=name
        )
    axes.set(xlabel='tokens L', ylabel='µs per token, forward', title='defocus_scan, batch 1')
    lengths = sorted({measurement.shape.length for measurement in found})
    axes.set_xticks(lengths, [f'{length:,}' for length in lengths], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
