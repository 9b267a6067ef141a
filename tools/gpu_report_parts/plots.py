"""Plots of the GPU report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from .goals import LEAST_OF_EXP, LEAST_SPEED_UP, PASSES
from .outcomes import Outcome

# Of each operator, our implementation and the alternative.
RIVALS = {
    'defocus_scan': ('cuda', 'chain on mamba_ssm'),
    'mixer': ('cuda', 'chain on mamba_ssm'),
    'bandpass_attention': ('triton', 'fla'),
    'retention': ('chunkwise', 'fla'),
}


def draw(outcomes: Mapping[str, Outcome], folder: Path) -> list[Path]:
    """Draw what was measured; return the PNG files."""
    drawings = {
        'operators': _draw_operators(outcomes['operators'].facts.get('records', [])),
        'networks': _draw_networks(outcomes['networks'].facts.get('records', [])),
        'training': _draw_training({name: outcomes[name] for name in ('classifier', 'detector')}),
    }
    files = []
    for name, figure in drawings.items():
        path = folder / f'{name}.png'
        path.unlink(missing_ok=True)
        if figure is not None:
            figure.savefig(path, dpi=110)
            files.append(path)
    return files


def speed_ups(records: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Return the time of the alternative divided by ours, by operator and implementations, then by shape and pass."""
    seconds = {
        (r['operator'], r['implementation'], r['batch'], r['length'], r['passes']): r['seconds']
        for r in records
        if r.get('seconds')
    }
    found: dict[str, dict[str, float]] = {}
    for (operator, name, batch, length, which), ours in seconds.items():
        own, rival = RIVALS.get(operator, (None, None))
        other = seconds.get((operator, rival, batch, length, which))
        if name == own and other is not None:
            found.setdefault(f'{operator}: {own} against {rival}', {})[f'{batch}, {length}, {which}'] = other / ours
    return found


def _figure(width: float, height: float, panels: int):
    from matplotlib.figure import Figure  # an optional dependency, needed only for plots

    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _draw_operators(records: Sequence[dict]):
    ratios = speed_ups(records)
    ours = ('defocus_scan', 'cuda', PASSES[0])
    forward = [r for r in records if (r['operator'], r['implementation'], r.get('passes')) == ours]
    shares = {f'{r["batch"]}, {r["length"]}': r['of_exp'] for r in forward if r['of_exp']}
    if not ratios and not shares:
        return None
    bars = [(pair, label, ratio) for pair, by_label in ratios.items() for label, ratio in by_label.items()]
    figure, (left, right) = _figure(11, max(3.5, 1 + 0.24 * len(bars)), 2)
    pairs = list(ratios)
    for row, (pair, label, ratio) in enumerate(bars):
        first = label == next(iter(ratios[pair]))
        left.barh(row, ratio, color=f'C{pairs.index(pair)}', label=pair if first else None)
        left.text(ratio, row, f' {ratio:.2f}', va='center', fontsize=8)
    left.set_yticks(range(len(bars)), [label for _, label, _ in bars], fontsize=8)
    left.invert_yaxis()
    left.margins(x=0.12)
    left.axvline(1, color='0.5', linewidth=1)
    left.axvline(LEAST_SPEED_UP, color='0.2', linestyle='--', linewidth=1)
    goal = f'dashed: goal of the scan, {LEAST_SPEED_UP:g}'
    left.set(title='Speed-up', xlabel=f'times as fast as the alternative ({goal})')
    if bars:
        figure.legend(loc='outside lower left', fontsize=8, ncols=2)
    bars_of_exp = right.bar(list(shares), [100 * share for share in shares.values()])
    right.bar_label(bars_of_exp, fmt='%.0f %%', fontsize=8)
    right.axhline(100 * LEAST_OF_EXP, color='0.2', linestyle='--', linewidth=1)
    right.set(title='Forward pass of the scan', xlabel='batch, tokens', ylabel='% of the exp ceiling (dashed: goal)')
    right.set_ylim(0, max(100, *(110 * share for share in shares.values())) if shares else 100)
    return figure


def _draw_networks(records: Sequence[dict]):
    timed = [record for record in records if 'training' in record]
    if not timed:
        return None
    figure, axes = _figure(11, 1.5 + 0.3 * len(timed), 2)
    names = [record['network'].removeprefix('timm:').removesuffix('_patch16_224') for record in timed]
    colours = ['C1' if record['network'].startswith('timm:') else 'C0' for record in timed]
    for axis, phase in zip(axes, ('inference', 'training'), strict=True):
        axis.bar_label(axis.barh(names, [record[phase] for record in timed], color=colours), fmt=' %.0f', fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set(xlabel='images per second', title=f'{phase.capitalize()} (orange: timm)')
    return figure


def _draw_training(outcomes: Mapping[str, Outcome]):
    losses = {name: outcome.facts['losses'] for name, outcome in outcomes.items() if outcome.facts.get('losses')}
    if not losses:
        return None
    figure, axes = _figure(11, 3.5, len(losses))
    for axis, (name, values) in zip(axes, losses.items(), strict=True):
        axis.plot([float('nan') if value is None else value for value in values], linewidth=1)
        axis.set(xlabel='step', ylabel='loss', title=f'Training of the {name}')
        axis.grid(alpha=0.3)
    return figure
