"""Command-line options that several tools share."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from .option_values import OptionText


class ConfigOptions(argparse.Action):
    """``KEY=VALUE`` words as a dictionary. The values stay text: their meaning depends on the config."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *rest: Any) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for word in values:
            key, equals, value = word.partition('=')
            if not (key and equals):
                parser.error(f"--cfg-options takes key=value pairs, got '{word}'")
            options[key] = OptionText(value)
        setattr(namespace, self.dest, options)


def add_config_options(parser: argparse.ArgumentParser, purpose: str = 'settings to change') -> None:
    """Add ``--cfg-options``, a dictionary for :func:`mmdefocus.cli.config_options.apply_options`.

    Args:
        parser: Parser of the tool.
        purpose: Purpose of the settings, for the help text.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        default={},
        metavar='KEY=VALUE',
        help=f'{purpose}, such as train_cfg.max_epochs=3 or key="[(a, b), (c, d)]". Numbers, None, True, False and '
        'values in quotes or brackets are read as in Python. Other text replaces a text unchanged, with its commas and '
        'blanks; elsewhere commas make a list. docs/options.md has examples',
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--work-dir``, ``--cfg-options``, ``--launcher`` and ``--local-rank``."""
    parser.add_argument('--work-dir', help='directory of logs and results; default: work_dirs/<name of the config>')
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments, and set ``LOCAL_RANK`` where a launcher passed the local rank as an option only."""
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args
