"""``mmdefocus val``: evaluate a checkpoint."""

import argparse

from mmdefocus.cli.arguments import add_amp_argument
from mmdefocus.cli.training_arguments import add_model_arguments, named_model

SUMMARY = 'Evaluate a checkpoint on a split of your data.'
EXAMPLES = """examples:
  mmdefocus val work_dirs/defocus_mamba_nano_my_data/best_coco_bbox_mAP_epoch_50.pth
  mmdefocus val work_dirs/defocus_mamba_nano_my_data/best_coco_bbox_mAP_epoch_50.pth --split test
  mmdefocus val defocus_mamba_base --weights FILE.pth --data my_data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_arguments(parser)
    parser.add_argument('--data', metavar='DATA', help='data of the evaluation; default: those of the training')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='val', help='default: val')
    add_amp_argument(parser)
    parser.add_argument('--json', metavar='FILE', help='also write the metrics to this file')


def run(args: argparse.Namespace) -> None:
    """Evaluate, and print the metrics."""
    import json

    from mmdefocus.cli.report import format_metrics
    from mmdefocus.engine.safe_writing import write_safely

    metrics = named_model(args).val(args.data, args.split, args.amp)
    print(format_metrics(metrics))
    if args.json is not None:
        write_safely(args.json, json.dumps(metrics, indent=2).encode())
        print(f'metrics: {args.json}')
