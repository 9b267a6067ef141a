"""The console script ``mmdefocus``.

A command is a module of :mod:`mmdefocus.cli.commands` with

- ``SUMMARY``, one line, and ``EXAMPLES``, the end of its ``--help``;
- ``add_arguments(parser)`` and ``run(args)``; ``add_arguments`` may call ``parser.set_defaults``;
- optionally ``USER_ERRORS``, a tuple of further exception types whose messages address the user;
- optionally ``LIGHT = True``, if ``run`` works without the OpenMMLab packages.

Its module imports nothing heavier than argparse, so that help and completion are quick.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import mmdefocus
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.suggestions import did_you_mean

from .arguments import ToolParser

COMMANDS = (
    'check-data',
    'train',
    'val',
    'predict',
    'report',
    'benchmark',
    'config',
    'models',
    'env',
    'completion',
)
EXAMPLES = """examples:
  mmdefocus predict --example                      boxes of a shipped detector, in seconds
  mmdefocus check-data my_data                     what is wrong with a data set
  mmdefocus train nano --data my_data              train on it
  mmdefocus COMMAND --help                         arguments and examples of a command

Exit status: 0 success, 1 a check failed, 2 a mistake in the request, 130 stopped by Ctrl-C.
"""


def command_module(name: str) -> ModuleType:
    """Import the module of a command."""
    return importlib.import_module(f'mmdefocus.cli.commands.{name.replace("-", "_")}')


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Arguments have the name of the command in ``command``."""
    parser = ToolParser(
        prog='mmdefocus',
        description='Train, evaluate and explain classifiers and detectors.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmdefocus {mmdefocus.__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', title='commands')
    for name in COMMANDS:
        module = command_module(name)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(parser=command)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; without one, print the help.

    Args:
        argv: Words after the name of the program; by default those of the command line.

    Raises:
        SystemExit: With the status 2 for a mistake in the request, 130 for Ctrl-C, or that of the command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        parser = make_parser()
        if words and not words[0].startswith('-') and words[0] not in COMMANDS:
            close = did_you_mean(difflib.get_close_matches(words[0], COMMANDS, n=2))
            parser.error(f"expected one of the commands {', '.join(COMMANDS)}, got '{words[0]}'{close}")
        args = parser.parse_args(words)
        if args.command is None:
            parser.print_help()
        else:
            _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write('Stopped by Ctrl-C\n')
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of the output has ended, as in `mmdefocus models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        raise SystemExit(141) from None


def _run(args: argparse.Namespace) -> None:
    module = command_module(args.command)
    if getattr(module, 'LIGHT', False):
        try:
            module.run(args)
        except UsageError as error:
            args.parser.exit(2, f'error: {error}\n')
        return
    try:
        from .run_tool import run_tool

        run_tool(args.parser, lambda: module.run(args), also=getattr(module, 'USER_ERRORS', ()))
    except ModuleNotFoundError as error:
        if (error.name or 'mmdefocus').startswith('mmdefocus'):
            raise
        args.parser.exit(
            2,
            f"error: `mmdefocus {args.command}` needs the package '{error.name}', which is not installed; "
            "install all packages of the models: pip install 'mmdefocus[det]'\n",
        )
