"""Ablations: trainings of one network with changed settings, each with several seeds."""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.cli.arguments import add_config_options

_PROGRAM = Path(__file__).with_name('train_and_test.py')


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Args:
        name: Name in the table.
        config: Config file.
        cfg_options: Dotted keys of the config and their values in this variant.
    """

    name: str
    config: str | Path
    cfg_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Name of the directory for the runs."""
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
    """Train and test every variant with every seed, each in its own process with one thread.

    The result of a run stays in ``work_dir/VARIANT/seed_N``. A second call skips the runs that finished with the same
    config, so that an interrupted ablation continues; interrupted runs start again from the beginning.

    Args:
        variants: Variants with distinct names.
        seeds: Seeds of each variant.
        metric: Name of a metric of the configs' ``test_evaluator``, such as ``accuracy/top1``.
        work_dir: Directory of all runs.
        jobs: Number of parallel runs.
        cfg_options: Settings that all variants share.
        report: Called with one line of text after each run.

    Returns:
        By variant name, the metric of the last step's model for each seed, in the order of ``seeds``.

    Raises:
        UsageError: An argument or a config is invalid. No training has started then.
        RuntimeError: A run fails or does not report the metric.
    """
    for what, values in (('variants', [variant.folder for variant in variants]), ('seeds', list(seeds))):
        if not values or len(set(values)) < len(values):
            raise UsageError(f'an ablation needs {what} that differ, at least one, got {values}')
    if jobs < 1:
        raise UsageError(f'jobs must be at least 1, got {jobs}')
    # Seed by seed, so that an interrupted ablation has compared all variants with the first seeds.
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
    """Add the options of an ablation tool.

    ``--variants``, ``--seeds``, ``--jobs``, ``--work-dir``, ``--out`` and ``--cfg-options``.

    Args:
        parser: Parser of the tool.
        names: Names of all variants.
        work_dir: Default directory of the runs.
    """
    parser.add_argument('--variants', nargs='+', choices=names, default=names, help='rows of the table; default: all')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    parser.add_argument('--jobs', type=int, default=2, help='parallel trainings, each with one thread; default: 2')
    parser.add_argument('--work-dir', default=work_dir, help='logs and results; default: %(default)s')
    parser.add_argument('--out', metavar='FILE.md', help='file for the table: a new one, or one with marks for it')
    add_config_options(parser, 'settings of all variants')


def _result(cfg: Config, metric: str) -> float:
    """Return the metric of a run, or of an earlier run with the same config."""
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
        command = [sys.executable, str(_PROGRAM), str(path)]
        status = subprocess.call(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    metrics = _finished(folder, config)
    if metrics is None:
        raise RuntimeError(f'a run ended with status {status} and without a result; see {log}, then repeat the command')
    return metrics
