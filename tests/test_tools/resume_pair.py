"""Trainings of the resume grid in the processes of a launcher: ``resume_pair.py ROOT``, as in test_resume_grid.py."""

import sys
from pathlib import Path

from resume_grid import GRID, Cell, train

import mmdefocus.cli.run_tool

# No batch statistics, and no numbers that are drawn by process: steps of the same images in any number of processes.
ALIKE = Cell('classification', drop_path=True, ema=True)
ALIKE_OPTIONS = {
    'model__train_cfg': None,
    'model__head__loss__use_soft': False,
    'default_hooks__drop_path': None,
}


def of_two_processes(cell: Cell) -> tuple[int, dict[str, int]]:
    """Return the iterations of a training in two processes, and the checkpoints to resume with their iterations.

    Accumulated steps of two processes, of three batches each, are resumed where a step is complete: at the end of an
    epoch of a classifier, whose checkpoint is written before the validation, and in the middle of one of a detector.
    """
    per_epoch = 3 if cell.task == 'classification' else 2
    last = 2 * per_epoch if cell.by_epoch else 8
    if cell.accumulation:
        return last, {'iter_3': 3} if cell.by_epoch else {'iter_6': 6}
    if not cell.by_epoch:
        return last, {'iter_5': 5}
    return last, {'epoch_1': per_epoch, f'iter_{per_epoch + 1}': per_epoch + 1}


def main(root: Path) -> None:
    # One group serves all trainings.
    leave, mmdefocus.cli.run_tool.leave_process_group = mmdefocus.cli.run_tool.leave_process_group, lambda: None
    for cell in GRID:
        config = root / f'{cell.name}.py'
        options = {'train_dataloader__batch_size': 2} if cell.task == 'classification' else {}
        words = '--launcher', 'pytorch'
        whole = train(root, config, f'pair_{cell.name}', *words, **options)
        for name in of_two_processes(cell)[1]:
            train(root, config, f'pair_{cell.name}_{name}', *words, '--resume', whole / f'{name}.pth', **options)
    train(root, root / 'alike.py', 'pair_alike', *words, train_dataloader__batch_size=2, **ALIKE_OPTIONS)
    leave()


if __name__ == '__main__':
    main(Path(sys.argv[1]))
