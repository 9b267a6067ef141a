"""Tables of ablation results in Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdefocus.apis.errors import UsageError

from .ablation import Variant

BEGIN_MARK, END_MARK = '<!-- begin of the table -->\n', '<!-- end of the table -->\n'


def format_ablation(variants: Sequence[Variant], results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Format the results of :func:`studies.ablation.run_ablation` as a Markdown table.

    Args:
        variants: Rows of the table.
        results: Return values of :func:`~studies.ablation.run_ablation` by metric; the metrics become headings.

    Returns:
        One row per variant with its settings and, for every metric, the values by seed, their mean and their sample
        standard deviation (with n - 1; omitted for a single seed). Percentages have two decimals, fractions three.
    """
    heading, rule = '| variant | settings |', '|---|---|'
    for metric in results:
        heading += f' {metric}, by seed | mean ± std |'
        rule += '---|--:|'
    lines = [heading, rule]
    for variant in variants:
        settings = ', '.join(f'`{key}={value}`' for key, value in variant.cfg_options.items())
        line = f'| {variant.name} | {settings} |'
        for by_variant in results.values():
            values = by_variant[variant.name]
            decimals = 3 if max(map(max, by_variant.values())) <= 1 else 2
            deviation = f' ± {statistics.stdev(values):.{decimals}f}' if len(values) > 1 else ''
            by_seed = ', '.join(f'{value:.{decimals}f}' for value in values)
            line += f' {by_seed} | {statistics.fmean(values):.{decimals}f}{deviation} |'
        lines.append(line)
    return '\n'.join(lines) + '\n'


def write_table(table: str, path: str | Path) -> None:
    """Write a table to a new file, or between the marks of an existing one.

    Args:
        table: Markdown.
        path: A new file, or one with the lines ``BEGIN_MARK`` and ``END_MARK``; the text between them is replaced.

    Raises:
        UsageError: The file exists and lacks these lines.
    """
    path = Path(path)
    text = path.read_text(encoding='utf-8') if path.exists() else BEGIN_MARK + END_MARK
    before, begin, rest = text.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not (begin and end):
        marks = f"'{BEGIN_MARK.strip()}' and '{END_MARK.strip()}'"
        raise UsageError(f"'{path}' exists and has no lines {marks} to write the table between")
    path.write_text(before + begin + table + end + after, encoding='utf-8')
