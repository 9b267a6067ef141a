"""Command-line options that several tools share."""

import argparse
import importlib
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.option_values import OptionText, has_open_bracket


class ToolParser(argparse.ArgumentParser):
    """Parser whose errors say where the arguments are explained."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2, the usage and a message."""
        super().error(f'{message}; "{self.prog} --help" explains the arguments')


class ConfigOptions(argparse.Action):
    """``KEY=VALUE`` words as a dictionary. The values stay text: their meaning depends on the config."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *rest: Any) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for word in values:
            key, equals, value = word.partition('=')
            if not (key and equals):
                parser.error(f"--cfg-options takes pairs key=value without blanks, got '{word}'")
            if has_open_bracket(value):
                parser.error(
                    f"--cfg-options takes values with matching brackets, got '{word}'; quote a value with blanks"
                )
            options[key] = OptionText(value)
        setattr(namespace, self.dest, options)


def add_config_options(parser: argparse.ArgumentParser, purpose: str = 'settings to change') -> None:
    """Add ``--cfg-options``, a dictionary for :func:`mmdefocus.apis.runs.config_options.apply_options`.

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


def add_amp_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--amp``."""
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision; on a CPU bfloat16, where it has instructions for it'
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


def import_custom(modules: Sequence[str]) -> None:
    """Import the modules of ``--custom-imports``.

    Raises:
        UsageError: One of them cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f'--custom-imports must name modules of this environment, got {name!r} ({error}); install it, or add '
                'its folder to PYTHONPATH'
            ) from error
