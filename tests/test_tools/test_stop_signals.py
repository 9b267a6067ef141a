"""SIGTERM and SIGINT: the training saves, says how to continue, and ends."""

import itertools
import os
from pathlib import Path
from signal import SIGINT, SIGTERM

import killing
import pytest
from commands import TOOLS
from processes import finish, ranks, start, wait_for
from saving_data import CONFIG, assert_same_training, make_images

from mmdefocus.models.checkpoint import read_checkpoint

numbers = itertools.count()


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('signals')
    make_images(root, per_class=4)  # four iterations per epoch
    return root


@pytest.fixture(scope='module')
def uninterrupted(root) -> Path:
    finish(start(root, 'whole.log', CONFIG, '--work-dir', 'whole'), root / 'whole.log')
    return root / 'whole' / 'epoch_4.pth'


def stopped(root: Path, point: str, number: int, *options: str, code: int, signals=(SIGTERM,)) -> tuple[Path, str]:
    """Train, send signals at a call of a hook point, expect a status, and return the directory and what was printed."""
    work_dir = root / f'work_{next(numbers)}'
    words = [CONFIG, '--work-dir', work_dir.name, *(['--cfg-options', *options] if options else [])]
    process = start(
        root,
        f'{work_dir.name}.log',
        *words,
        before=killing.signal_at,
        arguments=(point, number, *signals),
    )
    printed = finish(process, root / f'{work_dir.name}.log', code=code)
    assert 'Traceback' not in printed
    return work_dir, printed


def names(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.glob('*.pth') if not path.name.startswith('best_'))


@pytest.mark.parametrize(('name', 'code'), [(SIGTERM, 143), (SIGINT, 130)])
def test_in_the_middle_of_an_epoch(root, uninterrupted, name, code):
    work_dir, printed = stopped(root, 'before_train_iter', 6, signals=(name,), code=code)
    command = f'python {TOOLS / "train.py"} {CONFIG} --work-dir {work_dir.name} --resume'
    assert (
        f'Stopped by {name.name} after iteration 6 of 16, saved to {work_dir}/iter_6.pth. To continue: {command}\n'
        in printed
    )
    assert names(work_dir) == ['epoch_1.pth', 'iter_6.pth']
    assert (work_dir / 'last_checkpoint').read_text() == f'{work_dir}/iter_6.pth'
    content = read_checkpoint(work_dir / 'iter_6.pth')
    assert (content['meta']['epoch'], content['meta']['iter']) == (1, 6)

    log = f'{work_dir.name}_resumed.log'
    printed = finish(start(root, log, CONFIG, '--work-dir', work_dir.name, '--resume'), root / log)
    assert f'Load checkpoint from {work_dir.name}/iter_6.pth' in printed
    assert names(work_dir) == ['epoch_4.pth']
    assert_same_training(work_dir / 'epoch_4.pth', uninterrupted)


@pytest.mark.parametrize(('point', 'number'), [('before_train_iter', 8), ('before_val_iter', 5)])
def test_at_the_end_of_an_epoch_its_checkpoint_is_used(root, point, number):
    work_dir, printed = stopped(root, point, number, code=143)
    assert f'Stopped by SIGTERM after iteration 8 of 16, which {work_dir}/epoch_2.pth holds' in printed
    assert names(work_dir) == ['epoch_2.pth']
    assert 'Epoch(val) [2][4/4]' not in printed


@pytest.mark.parametrize(
    ('point', 'number', 'name'), [('before_train_iter', 4, 'iter_4'), ('before_val_iter', 1, 'iter_5')]
)
def test_an_epoch_without_a_checkpoint(root, point, number, name):
    """In a validation, the training saves after the next step."""
    work_dir, _ = stopped(root, point, number, 'default_hooks.checkpoint.interval=2', code=143)
    assert names(work_dir) == [f'{name}.pth']
    assert read_checkpoint(work_dir / f'{name}.pth')['meta']['epoch'] == 1


def test_accumulated_gradients_are_used_first(root):
    work_dir, _ = stopped(root, 'after_train_iter', 1, 'optim_wrapper.accumulative_counts=3', code=143)
    assert names(work_dir) == ['iter_3.pth']


def test_a_second_stop_replaces_the_file_of_the_first(root):
    work_dir, _ = stopped(root, 'after_train_iter', 1, code=143)
    assert names(work_dir) == ['iter_1.pth']
    log = f'{work_dir.name}_again.log'
    process = start(
        root,
        log,
        *(CONFIG, '--work-dir', work_dir.name, '--resume'),
        before=killing.signal_at,
        arguments=('after_train_iter', 1, SIGTERM),
    )
    finish(process, root / log, code=143)
    assert names(work_dir) == ['iter_2.pth']


def test_by_iteration(root):
    """The checkpoint of the iteration is used where there is one."""
    config = root / 'by_iteration.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\ntrain_cfg = dict(_delete_=True, by_epoch=False, max_iters=8, val_interval=8)\n'
        "param_scheduler = []\ntrain_dataloader = dict(sampler=dict(type='InfiniteSampler'))\n"
        'default_hooks = dict(sampler_seed=None, checkpoint=dict(by_epoch=False, interval=2, save_best=None))\n'
    )
    for number, expected in ((4, 'which {0}/iter_4.pth holds'), (5, 'saved to {0}/iter_5.pth')):
        work_dir = root / f'by_iteration_{number}'
        log = f'{work_dir.name}.log'
        process = start(
            root,
            log,
            *(config, '--work-dir', work_dir.name),
            before=killing.signal_at,
            arguments=('before_train_iter', number, SIGTERM),
        )
        assert expected.format(work_dir) in finish(process, root / log, 143)


@pytest.mark.parametrize(
    ('point', 'message'),
    [
        ('before_run', 'Stopped by SIGINT before the training; nothing was saved'),
        ('before_train_epoch', 'Stopped by SIGINT before the first iteration; nothing was saved'),
    ],
)
def test_before_there_is_anything_to_save(root, point, message):
    work_dir, printed = stopped(root, point, 1, code=130, signals=(SIGINT,))
    assert message in printed
    assert names(work_dir) == []


def test_a_second_sigint_ends_at_once(root):
    work_dir, printed = stopped(root, 'before_train_iter', 6, code=-SIGINT, signals=(SIGINT, SIGINT))
    assert 'Stopped by' not in printed
    assert names(work_dir) == ['epoch_1.pth']


def test_ignored_signals_stay_ignored(root):
    """As in the background of a script, and under nohup."""
    process = start(
        root,
        'ignored.log',
        *(CONFIG, '--work-dir', 'ignored'),
        before=killing.ignore_and_send,
        arguments=('before_train_iter', 6, SIGINT),
    )
    printed = finish(process, root / 'ignored.log')
    assert 'Stopped by' not in printed


def test_a_second_sigterm_does_not_interrupt_the_saving(root):
    work_dir, _ = stopped(root, 'before_train_iter', 6, code=143, signals=(SIGTERM, SIGTERM))
    assert names(work_dir) == ['epoch_1.pth', 'iter_6.pth']


def test_with_the_stock_hook_nothing_is_saved(root):
    work_dir, printed = stopped(root, 'before_train_iter', 6, 'default_hooks.checkpoint.type=CheckpointHook', code=143)
    assert 'This run has no DefocusCheckpointHook: SIGTERM and Ctrl-C will not save' in printed
    assert 'Stopped by SIGTERM after iteration 6 of 16, without saving' in printed
    assert names(work_dir) == ['epoch_1.pth']


def test_ctrl_c_reaches_the_workers_of_the_data_loader_too(root):
    loader = {'num_workers': 1, 'persistent_workers': False}
    options = [f'train_dataloader.{name}={value}' for name, value in loader.items()]
    words = [CONFIG, '--work-dir', 'group', '--cfg-options', *options, 'train_cfg.max_epochs=9']
    process = start(root, 'group.log', *words, before=os.setsid)
    wait_for(process, root / 'group.log', 'Epoch(train) [2][1/4]')
    os.killpg(process.pid, SIGINT)
    printed = finish(process, root / 'group.log', code=130)
    assert 'Stopped by SIGINT after iteration' in printed
    assert 'Traceback' not in printed


def test_all_processes_stop_after_the_same_step(root):
    """Only one of them receives the signal."""
    logs = ['rank_0.log', 'rank_1.log']
    words = [CONFIG, '--work-dir', 'ranks', '--launcher', 'pytorch']
    at = ('before_train_iter', 3, SIGTERM)
    processes = [
        start(root, log, *words, before=killing.signal_at_rank, arguments=(1, *at), **environment)
        for log, environment in zip(logs, ranks(2), strict=True)
    ]
    printed = [finish(process, root / log, code=143) for process, log in zip(processes, logs, strict=True)]
    assert f'Stopped by SIGTERM after iteration 3 of 8, saved to {root}/ranks/iter_3.pth' in printed[0]
    assert 'To continue: the same command with --resume' in printed[0]
    assert read_checkpoint(root / 'ranks' / 'iter_3.pth')['meta']['iter'] == 3
