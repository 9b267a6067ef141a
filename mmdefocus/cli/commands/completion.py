"""``mmdefocus completion``: scripts with which a shell completes the commands."""

import argparse

from mmdefocus.apis.errors import UsageError

SUMMARY = 'Print the script with which bash, zsh or tcsh completes commands, options, models and files.'
EXAMPLES = """examples:
  source <(mmdefocus completion bash)                        in this shell
  mmdefocus completion bash > ~/.mmdefocus-completion        then source this file in ~/.bashrc
  mmdefocus completion zsh > ~/.zfunc/_mmdefocus             in a folder of $fpath
"""
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('shell', choices=['bash', 'zsh', 'tcsh'], help='shell that is to complete')


def run(args: argparse.Namespace) -> None:
    """Print the script.

    Raises:
        UsageError: shtab is not installed.
    """
    try:
        from mmdefocus.cli.completion_script import completion_script
    except ModuleNotFoundError as error:
        raise UsageError(f'completion needs shtab ({error}); install it: pip install shtab') from error
    print(completion_script(args.shell))
