"""``mmdefocus benchmark``: time and memory of a model on this machine."""

import argparse

SUMMARY = 'Time whole predictions of a model on this machine: plain, compiled and in bfloat16.'
EXAMPLES = """examples:
  mmdefocus benchmark configs/dino/defocus_mamba_nano_digits.py
  mmdefocus benchmark defocus_mamba_nano --image-size 320 --variants eager bfloat16
  mmdefocus benchmark my_config.py --checkpoint my_training/epoch_12.pth --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    from mmdefocus.cli.arguments import add_config_options

    parser.add_argument(
        'model', metavar='MODEL', help='name in the zoo, config (.py), checkpoint (.pth) or folder of a training'
    )
    parser.add_argument('--task', choices=['detection', 'classification'], help='task of a name in the zoo')
    parser.add_argument('--checkpoint', metavar='FILE', help='weights; default: initial ones, which take the same time')
    parser.add_argument('--image-size', type=int, metavar='PIXELS', help='side of the image; default: as in the config')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images in a batch; default: 1')
    parser.add_argument(
        '--variants',
        nargs='+',
        choices=['eager', 'compiled', 'bfloat16'],
        default=['eager', 'compiled', 'bfloat16'],
        help='what to time; default: all',
    )
    parser.add_argument('--seconds', type=float, default=3.0, help='how long each variant is repeated; default: 3')
    parser.add_argument('--limit', type=float, default=120.0, help='seconds to compile a variant; default: 120')
    parser.add_argument('--device', help='such as cpu or cuda:1; default: a GPU if there is one')
    parser.add_argument('--json', action='store_true', help='print JSON')
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Measure and print a table."""
    import dataclasses
    import json
    import sys
    from pathlib import Path

    from mmdefocus.apis.latency import measure_latency
    from mmdefocus.apis.named_model import find_named_model
    from mmdefocus.apis.runs.checkpoints import check_checkpoint

    found = find_named_model(args.model, args.task, args.cfg_options)
    weights = None if args.checkpoint is None else check_checkpoint(args.checkpoint)
    if weights is None and found.weights and Path(found.weights).is_file():  # published weights are not downloaded
        weights = found.weights
    if weights is None:
        print('No checkpoint: initial weights, with which the time is the same.', file=sys.stderr)
    measured = measure_latency(
        found.cfg, weights, args.device, args.variants, args.image_size, args.batch_size, args.seconds, args.limit
    )
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in measured], indent=2))
        return
    first = measured[0]
    size = ' x '.join(map(str, first.image_size))
    print(f'{first.batch_size} x {size} pixels on {first.device}, {first.threads} threads')
    print(f'{"variant":<10}{"median ms":>11}{"90 % ms":>10}{"images/s":>10}{"peak MiB":>10}  note')
    for one in measured:
        numbers = (one.milliseconds_median, one.p90, one.images_per_second)
        cells = ['-' if value is None else f'{value:.4g}' for value in numbers]
        memory = '-' if one.peak_bytes is None else f'{one.peak_bytes / 2**20:.1f}'
        print(f'{one.variant:<10}{cells[0]:>11}{cells[1]:>10}{cells[2]:>10}{memory:>10}  {one.note}')
