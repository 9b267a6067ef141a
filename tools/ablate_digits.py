"""Train variants of the nano classifier on handwritten digits and print a table of their accuracies.

Repeat the command to continue an interrupted study. docs/ablation.md explains the table and its limits.
"""

import argparse
from pathlib import Path

from studies.ablation import Variant, add_ablation_arguments, run_ablation
from studies.ablation_table import format_ablation, write_table

from mmdefocus.apis.errors import UsageError

NANO = Path(__file__).parents[1] / 'configs' / 'classification' / 'defocus_mamba_nano_digits.py'
METRIC = 'accuracy/top1'
VARIANTS = (
    Variant('full', NANO),
    Variant('band-pass off', NANO, {'model.backbone.rotary': False}),
    Variant('auxiliary loss off', NANO, {'model.head.aux': None}),
    Variant('drop-path schedule off', NANO, {'default_hooks.drop_path.mode': 'constant'}),
)
# A shorter training than the config's, without intermediate evaluations.
SCHEDULE = {'train_cfg.max_epochs': 10, 'train_cfg.val_interval': 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_ablation_arguments(parser, [variant.name for variant in VARIANTS], 'work_dirs/ablate_digits')
    args = parser.parse_args()
    common = SCHEDULE | args.cfg_options
    variants = [variant for variant in VARIANTS if variant.name in args.variants]
    try:
        results = run_ablation(variants, args.seeds, METRIC, args.work_dir, args.jobs, common, print)
        table = format_ablation(variants, {METRIC: results})
        print(f'\n{table}', end='')
        if args.out is not None:
            write_table(table, args.out)
            print(f'\ntable: {args.out}')
    except (UsageError, RuntimeError) as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
