"""Train the nano networks on handwritten digits in float32 and in bfloat16, as classifiers and as detectors.

Prints a table of accuracies and box mAPs. Repeat the command to continue an interrupted study.
docs/mixed-precision.md explains the table.
"""

import argparse
from pathlib import Path
from typing import Any

from studies.ablation import Variant, add_ablation_arguments, run_ablation
from studies.ablation_table import format_ablation, write_table

from mmdefocus.apis.errors import UsageError
from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco
from mmdefocus.engine.cpu_bfloat16 import NO_BFLOAT16, cpu_has_bfloat16

CONFIGS = Path(__file__).parents[1] / 'configs'
PRECISIONS: dict[str, dict[str, Any]] = {
    'float32': {},
    'bfloat16': {'optim_wrapper.type': 'DefocusAmpOptimWrapper'},
}
# Folder of the configs, metric, and settings of both rows: classifiers as in tools/ablate_digits.py.
TASKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    'classification': (
        'classification',
        'accuracy/top1',
        {'train_cfg.max_epochs': 10, 'train_cfg.val_interval': 10},
    ),
    'detection': ('dino', 'coco/bbox_mAP', {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_ablation_arguments(parser, list(PRECISIONS), 'work_dirs/compare_precision')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS), help='default: both')
    args = parser.parse_args()
    results = {}
    try:
        if not cpu_has_bfloat16() and 'bfloat16' in args.variants:
            raise UsageError(f'{NO_BFLOAT16}; run the study on another machine, or with --variants float32')
        if 'detection' in args.tasks:
            make_digits_coco('data/digits', DigitsOptions())
        for task in args.tasks:
            folder, metric, common = TASKS[task]
            config = CONFIGS / folder / 'defocus_mamba_nano_digits.py'
            variants = [Variant(name, config, common | PRECISIONS[name] | args.cfg_options) for name in args.variants]
            results[metric] = run_ablation(
                variants, args.seeds, metric, Path(args.work_dir) / task, args.jobs, report=print
            )
        table = format_ablation([Variant(name, '', PRECISIONS[name]) for name in args.variants], results)
        print(f'\n{table}', end='')
        if args.out is not None:
            write_table(table, args.out)
            print(f'\ntable: {args.out}')
    except (UsageError, FileExistsError, RuntimeError) as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
