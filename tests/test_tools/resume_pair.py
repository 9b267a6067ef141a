"""Trainings of the resume grid in the processes of a launcher: ``resume_pair.py ROOT``, as in test_resume_grid.py."""

import sys
from pathlib import Path

from resume_grid import Cell, train

import mmdefocus.cli.run_tool

# Cell, iterations in all, and the checkpoints to resume with their iterations.
CELLS = [
    (Cell('classification', ema=True, drop_path=True), 6, {'epoch_1': 3, 'iter_4': 4}),
    # Written by iterations, at the end of an epoch: its validation and schedules have not come yet.
    (Cell('classification', accumulation=True), 6, {'iter_3': 3}),
    (Cell('classification', by_epoch=False, ema=True, accumulation=True), 8, {'iter_6': 6}),
    (Cell('detection'), 4, {'epoch_1': 2, 'iter_3': 3}),
    (Cell('detection', by_epoch=False, ema=True), 8, {'iter_5': 5}),
]
# No batch statistics, and no numbers that are drawn by process: steps of the same images in any number of processes.
ALIKE = Cell('classification', drop_path=True, ema=True)
ALIKE_OPTIONS = {
    'model__train_cfg': None,
    'model__head__loss__use_soft': False,
    'default_hooks__drop_path': None,
}


def main(root: Path) -> None:
    # One group serves all trainings.
    leave, mmdefocus.cli.run_tool.leave_process_group = mmdefocus.cli.run_tool.leave_process_group, lambda: None
    for cell, _, checkpoints in CELLS:
        config = cell.write_config(root)
        options = {'train_dataloader__batch_size': 2} if cell.task == 'classification' else {}
        words = '--launcher', 'pytorch'
        whole = train(root, config, f'pair_{cell.name}', *words, **options)
        for name in checkpoints:
            train(root, config, f'pair_{cell.name}_{name}', *words, '--resume', whole / f'{name}.pth', **options)
    config = ALIKE.write_config(root)
    train(root, config, 'pair_alike', *words, train_dataloader__batch_size=2, **ALIKE_OPTIONS)
    leave()


if __name__ == '__main__':
    main(Path(sys.argv[1]))
