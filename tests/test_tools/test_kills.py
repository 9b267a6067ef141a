"""Trainings that are killed at any moment: no checkpoint is lost, and the resumed training equals the whole one."""

import random
import time
from pathlib import Path

import killing
import pytest
from killing import MOMENTS
from processes import finish, start
from saving_data import CONFIG, assert_same_training, make_images

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.checkpoints import check_checkpoint, find_newest_checkpoint
from mmdefocus.models.checkpoint import read_checkpoint

# The writes of the first epochs: 1 epoch_1, 2 the best, 3 epoch_1 again with the name of the best, 4 epoch_2.
OVERWRITING, SECOND_EPOCH = 3, 4
RANDOM = random.Random(7)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('kills')
    make_images(root)
    return root


@pytest.fixture(scope='module')
def whole(root) -> tuple[Path, int, float]:
    """The directory of an uninterrupted training, its number of calls of hook points, and its seconds."""
    begin = time.monotonic()
    process = start(root, 'whole.log', CONFIG, '--work-dir', 'whole', before=killing.count_hooks)
    finish(process, root / 'whole.log')
    return root / 'whole', int((root / 'whole' / killing.CALLS).read_text()), time.monotonic() - begin


def saved_iteration(work_dir: Path) -> int:
    """Return the iteration of the last complete checkpoint, or 0."""
    notes = work_dir / killing.SAVED
    return int(notes.read_text().split()[-1]) if notes.is_file() else 0


def assert_nothing_is_lost(work_dir: Path) -> None:
    for path in work_dir.glob('*.pth'):
        check_checkpoint(str(path))
    newest = find_newest_checkpoint(work_dir)
    iteration = 0 if newest is None else read_checkpoint(newest)['meta']['iter']
    assert iteration >= saved_iteration(work_dir)


def assert_resumed_equals(root: Path, work_dir: Path, whole: Path) -> None:
    log = f'{work_dir.name}_resumed.log'
    printed = finish(start(root, log, CONFIG, '--work-dir', work_dir.name, '--resume'), root / log)
    assert ('resumed epoch' in printed) == (saved_iteration(work_dir) > 0)
    assert_same_training(work_dir / 'epoch_4.pth', whole / 'epoch_4.pth')
    assert [path.name for path in work_dir.glob('epoch_*.pth')] == ['epoch_4.pth']
    assert not list(work_dir.glob('*.unfinished'))


@pytest.mark.parametrize(('moment', 'write'), [('before the write', SECOND_EPOCH), ('half way', OVERWRITING)])
def test_the_stock_hook_loses_everything(root, moment, write):
    """Otherwise the tests below would show nothing."""
    work_dir = root / f'stock_{write}'
    process = start(
        root,
        'stock.log',
        *(CONFIG, '--work-dir', work_dir.name, '--cfg-options', 'default_hooks.checkpoint.type=CheckpointHook'),
        before=killing.note_saves,
        arguments=(moment, write),
    )
    finish(process, root / 'stock.log', code=-9)
    assert saved_iteration(work_dir) == 2
    with pytest.raises(UsageError, match='none of them can be resumed'):
        find_newest_checkpoint(work_dir)


@pytest.mark.parametrize(
    ('moment', 'number'),
    [
        *(
            (moment, SECOND_EPOCH)
            for moment in MOMENTS
            if moment not in ('before last_checkpoint', 'before the removal')
        ),
        *((moment, OVERWRITING) for moment in ('half way', 'after the rename')),
        ('before last_checkpoint', 3),
        ('before the removal', 1),
    ],
)
def test_killed_in_a_write(root, whole, moment, number):
    work_dir = root / f'{moment}_{number}'.replace(' ', '_')
    log = f'{work_dir.name}.log'
    process = start(
        root, log, CONFIG, '--work-dir', work_dir.name, before=killing.note_saves, arguments=(moment, number)
    )
    finish(process, root / log, code=-9)
    assert saved_iteration(work_dir) >= 2
    assert_nothing_is_lost(work_dir)
    assert_resumed_equals(root, work_dir, whole[0])


@pytest.mark.parametrize('share', [RANDOM.random() for _ in range(5)])
def test_killed_at_a_random_hook_point(root, whole, share):
    work_dir = root / f'hook_{share:.6f}'
    log = f'{work_dir.name}.log'
    number = 1 + int(share * whole[1])
    process = start(root, log, CONFIG, '--work-dir', work_dir.name, before=killing.die_at_hook, arguments=(number,))
    finish(process, root / log, code=-9)
    assert_nothing_is_lost(work_dir)
    assert_resumed_equals(root, work_dir, whole[0])


@pytest.mark.parametrize('share', [RANDOM.uniform(0.2, 1) for _ in range(5)])
def test_killed_at_a_random_time(root, whole, share):
    work_dir = root / f'time_{share:.6f}'
    log = f'{work_dir.name}.log'
    process = start(root, log, CONFIG, '--work-dir', work_dir.name, before=killing.note_saves)
    process.join(share * whole[2])
    process.kill()
    process.join()
    assert_nothing_is_lost(work_dir)
    assert_resumed_equals(root, work_dir, whole[0])
