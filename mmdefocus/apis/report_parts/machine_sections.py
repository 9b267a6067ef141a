"""Sections about the time of a prediction, and about how to repeat the training."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import get_git_hash
from mmengine.utils.dl_utils import collect_env

from mmdefocus.apis.latency import Latency
from mmdefocus.engine.amp_optim_wrapper import describe_precision
from mmdefocus.pages import Code, Page, Part, Table, Text, points

# Long, or of no use to a reader; report.json has them.
_DETAILS = ('PyTorch compiling details', 'numpy_random_seed')


def add_latency(page: Page, measured: Sequence[Latency] | str, score: tuple[str, float] | None) -> None:
    """Add accuracy and latency, or the reason why there is none.

    Args:
        page: The page.
        measured: Measurements, or a reason.
        score: Name and value of the metric of the plain network.
    """
    if isinstance(measured, str):
        page.add('Latency', Text(measured))
        return
    timed = {
        one.variant: ([one.milliseconds_median], [score[1]]) for one in measured if score and one.milliseconds_median
    }
    parts: list[Part] = []
    if timed and score:
        parts.append(points(timed, 'milliseconds per batch', score[0], title=f'{score[0]} and latency'))
    columns = ['variant', 'median ms', '90 % ms', 'images/s', 'peak MiB', 'difference']
    rows = [
        [
            one.variant,
            one.milliseconds_median,
            one.p90,
            one.images_per_second,
            None if one.peak_bytes is None else one.peak_bytes / 2**20,
            one.difference,
            one.note,
        ]
        for one in measured
    ]
    parts.append(Table([*columns, 'note'], rows))
    first = measured[0]
    page.add(
        'Latency',
        *parts,
        note=f'A whole prediction of a batch of {first.batch_size}, {first.image_size[0]} by {first.image_size[1]} '
        f'pixels, on {first.device} (threads: {first.threads}). Nine of ten take at most the time under “90 % ms”. The '
        'score is that of the plain network; “difference” is the largest difference of a score to it.',
    )


def describe_environment() -> dict[str, str]:
    """Return versions, processor and GPU, and the git commit if the package is in a checkout."""
    found = {str(name): str(value) for name, value in collect_env().items()}
    commit = get_git_hash(fallback='')
    return {**found, **({'git commit': commit} if commit else {})}


def add_repetition(
    page: Page,
    cfg: Config,
    config: Path,
    checkpoint: Path,
    seed: int | None,
    start: str | None,
    environment: Mapping[str, str],
) -> str:
    """Add command, environment and config; return the command.

    Args:
        page: The page.
        cfg: Content of the config.
        config: Its file.
        checkpoint: The checkpoint of the report.
        seed: Seed of the training; None if it is not known.
        start: Weights from which the training started; None for initial ones.
        environment: Names and versions.
    """
    words = ['mmdefocus', 'train', str(config), '--work-dir', 'repeated']
    changes = []
    if seed is not None and (cfg.get('randomness') or {}).get('seed') != seed:
        changes.append(f'randomness.seed={seed}')
    if cfg.get('load_from') != start:
        changes.append(f'load_from={start}')
    words += ['--cfg-options', *changes] if changes else []
    command = shlex.join(words)
    seeds = (
        'The checkpoint names no seed: the training cannot be repeated exactly.'
        if seed is None
        else f'The seed was {seed}.'
    )
    precision = describe_precision(cfg.get('optim_wrapper') or {})
    page.add(
        'Repeat it',
        Code(command),
        Text(f'Run it in {Path.cwd()}. {seeds} Precision: {precision}. Checkpoint of this report: {checkpoint}'),
        Table(
            ['part', 'version or value'],
            [[name, value] for name, value in environment.items() if name not in _DETAILS],
            'Environment',
        ),
        Code(cfg.pretty_text, 'Complete config'),
        note='The config below is complete: tools/train.py of the repository takes the same file.',
    )
    return command


def to_json(content: Mapping[str, Any]) -> str:
    """Return JSON without numbers that are not finite, which JSON does not have."""
    return json.dumps(_finite(content), indent=1, allow_nan=False, default=str) + '\n'


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not abs(value) < float('inf'):
        return None
    return value
