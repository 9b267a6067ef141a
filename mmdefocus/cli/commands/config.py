"""``mmdefocus config``: print the config of a training."""

import argparse
import sys
from contextlib import redirect_stdout

from mmdefocus.cli.training_arguments import add_model_arguments, add_training_arguments, named_model, training_options

SUMMARY = 'Print the complete config of a training, which tools/train.py trains with the same result.'
EXAMPLES = """examples:
  mmdefocus config nano --data my_data --epochs 50 > my_config.py
  mmdefocus train my_config.py
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_arguments(parser)
    add_training_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Print the config alone; everything else goes to the error output."""
    with redirect_stdout(sys.stderr):
        cfg = named_model(args).config(args.data, **training_options(args))
    print(cfg.pretty_text, end='')
