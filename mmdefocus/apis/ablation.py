"""Ablations: the same training with some settings changed, each with several seeds, and a table of what came out."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdefocus.apis.arguments import add_config_options
from mmdefocus.apis.runner import UsageError, apply_train_options, build_runner, load_config

BEGIN_MARK, END_MARK = '<!-- begin of the table -->\n', '<!-- end of the table -->\n'
_TRAIN_AND_TEST = 'import sys; from mmdefocus.apis.ablation import train_and_test; train_and_test(sys.argv[1])'


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Args:
        name: What the table calls it.
        config: Config file.
        cfg_options: Dotted keys of the config and their values in this variant.
    """

    name: str
    config: str | Path
    cfg_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of the directory that holds its runs."""
        return re.sub(r'\W+', '-', self.name).strip('-')


def run_ablation(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    metric: str,
    work_dir: str | Path,
    jobs: int = 1,
    cfg_options: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> dict[str, list[float]]:
    """Train and test every variant with every seed, each in a process of its own with one thread.

    The result of a run stays in ``work_dir/VARIANT/seed_N``. Called again, runs whose config is the same are not
    repeated, so that an interrupted ablation goes on; the runs that were interrupted start anew.

    Args:
        variants: What to compare, under names that differ.
        seeds: Seeds of each variant.
        metric: Name of a metric of the configs' ``test_evaluator``, such as ``accuracy/top1``.
        work_dir: Directory of all runs.
        jobs: Runs at a time.
        cfg_options: Settings that all variants share.
        report: Called with a line about each run that ends.

    Returns:
        For each variant's name the metric of the last step's model, with every seed in their order.

    Raises:
        UsageError: If an argument makes no sense or a config is wrong; nothing has been trained then.
        RuntimeError: If a run fails or does not report the metric.
    """
    for what, values in (('variants', [variant.folder for variant in variants]), ('seeds', list(seeds))):
        if not values or len(set(values)) < len(values):
            raise UsageError(f'an ablation needs {what} that differ, at least one, got {values}')
    if jobs < 1:
        raise UsageError(f'jobs must be at least 1, got {jobs}')
    # Seed by seed, so that an ablation that is cut short has compared all variants with the first ones.
    runs = {
        (variant.name, seed): load_config(
            variant.config,
            {**(cfg_options or {}), **variant.cfg_options, 'randomness.seed': seed},
            str(Path(work_dir) / variant.folder / f'seed_{seed}'),
        )
        for seed in seeds
        for variant in variants
    }
    results = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(_result, cfg, metric): run for run, cfg in runs.items()}
        for done, future in enumerate(as_completed(futures), 1):
            name, seed = futures[future]
            results[name, seed] = future.result()
            if report is not None:
                report(f'[{done}/{len(runs)}] {name}, seed {seed}: {results[name, seed]:#.4g}')
    finally:
        pool.shutdown(cancel_futures=True)
    return {variant.name: [results[variant.name, seed] for seed in seeds] for variant in variants}


def add_ablation_arguments(parser: argparse.ArgumentParser, names: Sequence[str], work_dir: str) -> None:
    """Add the options of a tool that runs an ablation.

    ``--variants``, ``--seeds``, ``--jobs``, ``--work-dir``, ``--out`` and ``--cfg-options``.

    Args:
        parser: Of the tool.
        names: Of all variants.
        work_dir: Default directory of the runs.
    """
    parser.add_argument('--variants', nargs='+', choices=names, default=names, help='rows of the table; default: all')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--jobs', type=int, default=2, help='trainings at a time, each with one thread; default: 2')
    parser.add_argument('--work-dir', default=work_dir, help='logs and results; default: %(default)s')
    parser.add_argument('--out', metavar='FILE.md', help='file for the table: a new one, or one with a place for it')
    add_config_options(parser, 'settings of all variants')


def train_and_test(config: str) -> None:
    """Train with a config file, test the model of the last step, and write what came out to ``work_dir/result.json``.

    The file has ``metrics`` and, since the runner may overwrite the config file, ``config``, its text.
    """
    text = Path(config).read_text(encoding='utf-8')
    cfg = load_config(config)
    apply_train_options(cfg)
    runner = build_runner(cfg)
    runner.train()
    metrics = {name: float(value) for name, value in runner.test().items()}
    path = Path(cfg.work_dir) / 'result.json'
    unfinished = path.with_suffix('.unfinished')
    unfinished.write_text(json.dumps(dict(config=text, metrics=metrics)), encoding='utf-8')
    unfinished.replace(path)


def format_ablation(variants: Sequence[Variant], results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Lay out the results of :func:`run_ablation` as a Markdown table.

    Args:
        variants: The rows.
        results: What :func:`run_ablation` returned, by metric, whose name becomes a heading.

    Returns:
        One row per variant with its settings and, for every metric, the values by seed and their mean and standard
        deviation (of a sample, with n - 1; there is none of a single seed). Percentages have two decimals, fractions
        three.
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
    """Write a table to a new file, or into a file that has a place for it.

    Args:
        table: Markdown.
        path: A new file, or one with the lines ``BEGIN_MARK`` and ``END_MARK``, between which the table is replaced.

    Raises:
        UsageError: If the file exists and has no such place.
    """
    path = Path(path)
    text = path.read_text(encoding='utf-8') if path.exists() else BEGIN_MARK + END_MARK
    before, begin, rest = text.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not (begin and end):
        marks = f"'{BEGIN_MARK.strip()}' and '{END_MARK.strip()}'"
        raise UsageError(f"'{path}' exists and has no lines {marks} to write the table between")
    path.write_text(before + begin + table + end + after, encoding='utf-8')


def _result(cfg: Config, metric: str) -> float:
    """The metric of a run, of an earlier one if that had the same config."""
    folder = Path(cfg.work_dir)
    metrics = _finished(folder, cfg.pretty_text) or _run(folder, cfg.pretty_text)
    if metric not in metrics:
        raise RuntimeError(f"the runs report no '{metric}' but {', '.join(metrics)}; ask for one of these")
    return metrics[metric]


def _finished(folder: Path, config: str) -> dict[str, float] | None:
    path = folder / 'result.json'
    result = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
    return result['metrics'] if result.get('config') == config else None


def _run(folder: Path, config: str) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / 'config.py', folder / 'log.txt'
    path.write_text(config, encoding='utf-8')
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    with log.open('w', encoding='utf-8') as output:
        command = [sys.executable, '-c', _TRAIN_AND_TEST, str(path)]
        status = subprocess.call(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    metrics = _finished(folder, config)
    if metrics is None:
        raise RuntimeError(f'a run ended with status {status} and without a result; mend what {log} tells and repeat')
    return metrics
