"""``mmdefocus train``: train a classifier or a detector."""

import argparse
import sys

from mmdefocus.cli.arguments import add_amp_argument
from mmdefocus.cli.training_arguments import add_model_arguments, add_training_arguments, named_model, training_options

SUMMARY = 'Train a classifier or a detector on your own data, or a config as it is.'
EXAMPLES = """examples:
  mmdefocus train nano --data my_data --epochs 50              a small detector, or a classifier of class folders
  mmdefocus train defocus_mamba_base --data my_data --batch-size auto
  mmdefocus train nano --data my_data --overfit                can the model learn eight of the images?
  mmdefocus train nano --data my_data --resume                 continue where it stopped
  mmdefocus train work_dirs/defocus_mamba_nano_my_data/config.py --work-dir again     as tools/train.py would
  torchrun --nproc-per-node 4 --no-python mmdefocus train base --data my_data --batch-size 2 --launcher pytorch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_arguments(parser)
    add_training_arguments(parser)
    parser.add_argument('--resume', action='store_true', help='continue from the newest checkpoint of the folder')
    parser.add_argument(
        '--overfit',
        nargs='?',
        type=int,
        const=8,
        metavar='N',
        help='train on N images only (default: 8), which tells mistakes of the data from those of the model',
    )
    parser.add_argument(
        '--no-dry-run', dest='dry_run', action='store_false', help='do not measure the memory before the training'
    )
    add_amp_argument(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='launcher of several processes'
    )


def run(args: argparse.Namespace) -> None:
    """Train, and print the best checkpoint with its metrics.

    Raises:
        SystemExit: With the status 1 if the model could not learn the images of ``--overfit``.
    """
    from mmengine.dist import is_main_process

    from mmdefocus.cli.report import format_metrics

    result = named_model(args).train(
        args.data,
        **training_options(args),
        resume=args.resume,
        overfit=args.overfit,
        dry_run=args.dry_run,
        amp=args.amp,
        launcher=args.launcher,
    )
    if is_main_process():
        print(format_metrics(result.metrics))
        if result.checkpoint is not None:
            print(f'best checkpoint: {result.checkpoint}')
            print(f'next: mmdefocus report {result.work_dir}')
        if result.passed is not None:
            print(f'overfit {"passed" if result.passed else "failed"}: {result.verdict}')
    if result.passed is False:
        sys.exit(1)
