"""Train five families of networks on handwritten digits, as classifiers and as detectors.

De-focus Mamba, ViT and RetNet are trained with and without band-pass; FCViT and DAT++ have none.

Prints a table of accuracies and box mAPs and plots them. Repeat the command to continue an interrupted study.
docs/mixers.md explains the table and its limits.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.ablation import Variant, add_ablation_arguments, run_ablation
from studies.ablation_plot import draw_ablation
from studies.ablation_table import format_ablation, write_table

from mmdefocus.apis.errors import UsageError
from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco

CONFIGS = Path(__file__).parents[1] / 'configs'
# The plain networks of docs/bandpass.md: without the band-pass, attention and retention need absolute positions.
PLAIN = {'model.backbone.band_pass': False, 'model.backbone.absolute_positions': True}
# Prefix of the configs, and settings.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    'De-focus Mamba': ('defocus_mamba', {}),
    'Mamba, band-pass off': ('defocus_mamba', {'model.backbone.rotary': False}),
    'De-focus ViT': ('defocus_vit', {}),
    'ViT, band-pass off': ('defocus_vit', PLAIN),
    'De-focus RetNet': ('defocus_retnet', {}),
    'RetNet, band-pass off': ('defocus_retnet', PLAIN),
    'FCViT': ('fcvit', {}),
    'DAT++': ('dat', {}),
}

SCENES = DigitsOptions(train_images=3200, val_images=200, size=96, digits=(1, 2), digit_size=(28, 56))
DATA_ROOT = 'data/digits_96/'
SCALE = (SCENES.size, SCENES.size)


@dataclass(frozen=True)
class Task:
    """A task with its training schedule.

    Args:
        folder: Folder of the configs.
        metric: Name of the metric in the configs' evaluator.
        schedule: Settings of all networks: shorter trainings than those of the configs.
        by_family: Settings of the networks of each family, with and without band-pass.
    """

    folder: str
    metric: str
    schedule: dict[str, Any]
    by_family: dict[str, dict[str, Any]]


# Smaller digits than in the configs: 36 tokens.
SIDE = 24
TOKENS = {
    'model.backbone.img_size': SIDE,
    'train_dataloader.dataset.size': SIDE,
    'val_dataloader.dataset.size': SIDE,
    'test_dataloader.dataset.size': SIDE,
    'val_dataloader.dataset.pipeline.0.scale': (SIDE, SIDE),
    'test_dataloader.dataset.pipeline.0.scale': (SIDE, SIDE),
}

TASKS = {
    # Evaluated at the end only.
    'classification': Task(
        'classification',
        'accuracy/top1',
        {'train_cfg.val_interval': 100, 'train_dataloader.batch_size': 16, 'param_scheduler.0.end': 88},
        {
            'defocus_mamba': {**TOKENS, 'optim_wrapper.optimizer.lr': 4e-3, 'train_cfg.max_epochs': 12},
            'defocus_vit': {**TOKENS, 'optim_wrapper.optimizer.lr': 2e-3, 'train_cfg.max_epochs': 30},
            'defocus_retnet': {**TOKENS, 'optim_wrapper.optimizer.lr': 2e-3, 'train_cfg.max_epochs': 12},
            'fcvit': {},
            'dat': {},
        },
    ),
    # Smaller scenes than in the demo (144 tokens), one epoch.
    'detection': Task(
        'dino',
        'coco/bbox_mAP',
        {
            'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1,
            'train_dataloader.batch_size': 4,
            'param_scheduler.0.end': 100,
            'param_scheduler.1.T_max': 1,
            'param_scheduler.1.end': 1,
            # The loss of the published study, which is older than the quality focal loss of the recipe.
            'model.bbox_head.loss_cls': dict(
                _delete_=True, type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0
            ),
            'train_dataloader.dataset.pipeline.2.scale': SCALE,
            'val_dataloader.dataset.pipeline.1.scale': SCALE,
            'test_dataloader.dataset.pipeline.1.scale': SCALE,
            'train_dataloader.dataset.data_root': DATA_ROOT,
            'val_dataloader.dataset.data_root': DATA_ROOT,
            'test_dataloader.dataset.data_root': DATA_ROOT,
            'val_evaluator.ann_file': DATA_ROOT + 'annotations/instances_val.json',
            'test_evaluator.ann_file': DATA_ROOT + 'annotations/instances_val.json',
        },
        {
            'defocus_mamba': {'model.backbone.img_size': SCENES.size},
            'defocus_vit': {'model.backbone.img_size': SCENES.size},
            'defocus_retnet': {'model.backbone.img_size': SCENES.size},
            'fcvit': {},
            'dat': {'model.backbone.img_size': SCENES.size},
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_ablation_arguments(parser, list(NETWORKS), 'work_dirs/compare_mixers')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS), help='default: both')
    parser.add_argument('--plot', metavar='FILE.png', help='file for a plot of the results')
    args = parser.parse_args()
    chosen = {name: NETWORKS[name] for name in NETWORKS if name in args.variants}
    results = {}
    try:
        if 'detection' in args.tasks:
            make_digits_coco(DATA_ROOT, SCENES)
        for task in (TASKS[name] for name in args.tasks):
            variants = [
                Variant(
                    name,
                    CONFIGS / task.folder / f'{family}_nano_digits.py',
                    task.schedule | task.by_family[family] | settings | args.cfg_options,
                )
                for name, (family, settings) in chosen.items()
            ]
            work_dir = Path(args.work_dir) / task.folder
            results[task.metric] = run_ablation(variants, args.seeds, task.metric, work_dir, args.jobs, report=print)
        rows = [Variant(name, family, settings) for name, (family, settings) in chosen.items()]
        table = format_ablation(rows, results)
        print(f'\n{table}', end='')
        if args.out is not None:
            write_table(table, args.out)
            print(f'\ntable: {args.out}')
        if args.plot is not None:
            draw_ablation(results, args.plot)
            print(f'picture: {args.plot}')
    except (UsageError, FileExistsError, RuntimeError) as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
