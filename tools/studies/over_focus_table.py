"""Tables of the study of over-focus, in Markdown."""

import statistics
from collections.abc import Mapping, Sequence

from .over_focus_scores import COLUMNS, MAPS

# By network, the numbers of every seed, as of :func:`.over_focus_scores.measure`.
Results = Mapping[str, Sequence[Mapping[str, float]]]


def format_scores(results: Results, accuracies: Mapping[str, Sequence[float]]) -> str:
    """Return a table with a row per network: mean ± sample standard deviation over the seeds.

    Args:
        results: Scores of every seed by network.
        accuracies: Top-1 accuracy of every seed, in percent, by network.
    """
    rows = [['network', 'top-1', *(title for title, _ in COLUMNS.values())]]
    rows.append(['*over-focused:*', '', *(f'*{direction}*' for _, direction in COLUMNS.values())])
    for network, seeds in results.items():
        scores = [_mean_std([seed[name] for seed in seeds], 3) for name in COLUMNS]
        rows.append([network, _mean_std(accuracies[network], 2), *scores])
    return _table(rows)


def format_effects(results: Results, pairs: Mapping[str, tuple[str, str]]) -> str:
    """Return a table of what a change does to the scores, seed by seed.

    Args:
        results: Scores of every seed by network.
        pairs: By name of the row, the networks with and without the change.

    Returns:
        Mean of the differences with - without ± their sample standard deviation. A difference that has the same sign
        with every seed is called less or more over-focus, any other one unclear.
    """
    rows = [['change', *(title for title, _ in COLUMNS.values())]]
    for row, (changed, unchanged) in pairs.items():
        cells = [row]
        for name, (_, direction) in COLUMNS.items():
            pair = zip(results[changed], results[unchanged], strict=True)
            differences = [after[name] - before[name] for after, before in pair]
            cells.append(f'{_mean_std(differences, 3, "+")}, {_verdict(direction, differences)}')
        rows.append(cells)
    return _table(rows)


def format_faithfulness(results: Results) -> str:
    """Return a table with a row per network: what each map gains over random order in the area under insertion."""
    rows = [['network', *MAPS]]
    for network, seeds in results.items():
        gains = [[seed[f'faithfulness of {name}'] for seed in seeds] for name in MAPS]
        rows.append([network, *(_mean_std(gain, 3, '+') for gain in gains)])
    return _table(rows)


def _verdict(over_focused: str, differences: Sequence[float]) -> str:
    rises, falls = (all(sign * difference > 0 for difference in differences) for sign in (1, -1))
    if not (rises or falls):
        return 'unclear'
    return 'more over-focus' if rises == (over_focused == 'high') else 'less over-focus'


def _mean_std(values: Sequence[float], decimals: int, sign: str = '') -> str:
    deviation = f' ± {statistics.stdev(values):.{decimals}f}' if len(values) > 1 else ''
    return f'{statistics.fmean(values):{sign}.{decimals}f}{deviation}'


def _table(rows: Sequence[Sequence[str]]) -> str:
    heading, *others = (f'| {" | ".join(row)} |' for row in rows)
    return '\n'.join([heading, '|---' * len(rows[0]) + '|', *others]) + '\n'
