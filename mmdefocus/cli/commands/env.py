"""``mmdefocus env``: versions, compilers and operator backends."""

import argparse
import json

SUMMARY = 'Print the installed versions, GPUs, compilers, and which operator backends can run.'
EXAMPLES = """examples:
  mmdefocus env
  mmdefocus env --json > environment.json
"""
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('--json', action='store_true', help='print JSON')


def run(args: argparse.Namespace) -> None:
    """Print the environment."""
    from mmdefocus.cli.environment import describe_environment, environment_as_text

    print(json.dumps(describe_environment(), indent=2) if args.json else environment_as_text())
