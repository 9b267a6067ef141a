"""``mmdefocus report``: the page that explains a training."""

import argparse

SUMMARY = 'Evaluate a training and write an offline page about it: curves, AP, mistakes, latency.'
EXAMPLES = """examples:
  mmdefocus report work_dirs/my_training
  mmdefocus report work_dirs/my_training --no-latency --out my_report
  mmdefocus report work_dirs/my_training --checkpoint work_dirs/my_training/epoch_3.pth
  mmdefocus report work_dirs/my_training --data other_data --out report_of_other_data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('work_dir', metavar='WORK_DIR', help='work directory of the training')
    parser.add_argument('--checkpoint', metavar='FILE', help='what to evaluate; default: the best or newest checkpoint')
    parser.add_argument('--out', metavar='DIR', help='folder for the report; default: WORK_DIR/report')
    parser.add_argument(
        '--data', metavar='DATA', help='evaluate on the split val of these data, as mmdefocus val does; any format'
    )
    parser.add_argument('--device', help='device of the latency, such as cpu or cuda:1; default: a GPU if there is one')
    parser.add_argument('--no-latency', dest='latency', action='store_false', help='do not measure the latency')


def run(args: argparse.Namespace) -> None:
    """Write the report, and print its path and its most important sentences."""
    import json

    from mmdefocus.apis.training_report import write_report

    page = write_report(args.work_dir, args.out, args.checkpoint, args.device, args.latency, args.data)
    summary = json.loads(page.with_name('report.json').read_text('utf-8'))['summary']
    print('\n'.join([*summary[:3], f'open {page}']))
