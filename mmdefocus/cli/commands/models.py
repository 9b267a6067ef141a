"""``mmdefocus models``: the models of the zoo."""

import argparse

SUMMARY = 'List the models of the zoo with their size, cost and weights.'
EXAMPLES = """examples:
  mmdefocus models
  mmdefocus models --task classification
"""
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('--task', choices=['detection', 'classification'], help='only the models for this task')


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from mmdefocus.apis.zoo import list_zoo, zoo_columns

    for task in ('detection', 'classification'):
        if args.task in (None, task):
            titles = tuple(zoo_columns(list_zoo()[0]))
            rows = [tuple(zoo_columns(model).values()) for model in list_zoo(task)]
            widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
            print(task.capitalize())
            for row in (titles, *rows):
                print('  ' + '  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths, strict=True)).rstrip())
            print()
    print(
        'Parameters and multiply-adds have heads for 80 (detection) or 1000 (classification) classes. Memory: peak of'
    )
    print('the process on a CPU, of inference of one image and of training with two. nano, small, base and large are')
    print('short for De-focus Mamba.')
