"""Checkpoints that cannot be written: the former one stays whole, and the error says what to do."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import killing
import pytest
from processes import finish, ranks, start
from saving_data import CONFIG, assert_same_training, make_images

from mmdefocus.apis.runs.checkpoints import check_checkpoint

UNCHANGED = 'The checkpoints that were saved before are unchanged. '


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('failed')
    make_images(root)
    return root


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path | None]:
    """A file system with room for one checkpoint and a half; None where this user may not mount one."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1400k', 'tmpfs', str(disk)], capture_output=True)
    yield disk if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(['umount', str(disk)], check=True)


def failed(
    root: Path, work_dir: str, *options: str, before=None, arguments=(), log: str = 'failed.log', words=()
) -> str:
    """Train, expect status 2 and the message of an error, and return it."""
    settings = ['--cfg-options', 'default_hooks.checkpoint.save_best=None', *options]
    process = start(root, log, CONFIG, '--work-dir', work_dir, *words, *settings, before=before, arguments=arguments)
    printed = finish(process, root / log, code=2)
    assert 'Traceback' not in printed
    return printed[printed.index('error: ') :]


def assert_only_the_first_remains(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir() if 'epoch' in path.name) == [
        'epoch_1.pth',
        'epoch_1.pth.sha256',
    ]
    assert check_checkpoint(str(directory / 'epoch_1.pth'), to_resume=True)


def test_a_full_disk(root, small_disk):
    if small_disk is None:
        out_dir = root / 'out'
        message = failed(
            root, 'full', f'default_hooks.checkpoint.out_dir={out_dir}', before=killing.fill_disk, arguments=(2,)
        )
    else:
        out_dir = small_disk
        message = failed(root, 'full', f'default_hooks.checkpoint.out_dir={out_dir}')
    path = out_dir / 'full' / 'epoch_2.pth'
    assert message.startswith(f'error: {path} (')
    assert 'bytes) cannot be written: the disk is full (No space left on device)' in message
    assert UNCHANGED + 'Free space, keep fewer files (max_keep_ckpts) or save elsewhere (default_hooks' in message
    assert_only_the_first_remains(path.parent)
    assert (root / 'full' / 'last_checkpoint').read_text() == str(path.parent / 'epoch_1.pth')


def test_a_quota_and_the_way_out_of_it(root):
    message = failed(root, 'quota', before=killing.refuse_write, arguments=(2, 'EDQUOT'))
    path = root / 'quota' / 'epoch_2.pth'
    assert message.startswith(f'error: {path} (')
    assert 'cannot be written: the disk quota is used up (Disk quota exceeded). ' + UNCHANGED in message
    assert_only_the_first_remains(path.parent)
    for name, words in (('quota', ['--resume']), ('whole', [])):
        finish(start(root, 'log', CONFIG, '--work-dir', name, *words), root / 'log')
    assert_same_training(root / 'quota' / 'epoch_4.pth', root / 'whole' / 'epoch_4.pth')


def test_a_read_only_directory_is_noticed_before_the_first_iteration(root, small_disk):
    if small_disk is not None:
        subprocess.run(['mount', '-o', 'remount,ro', str(small_disk)], check=True)
        directory, cause = small_disk, 'the file system is read-only (Read-only file system)'
    elif os.geteuid() == 0:  # Permissions do not bind this user. A container has a read-only /sys.
        directory, cause = Path('/sys'), 'the file system is read-only (Read-only file system)'
    else:
        directory, cause = root / 'read_only', 'there is no permission (Permission denied)'
        directory.mkdir(mode=0o555)
    message = failed(root, 'refused', f'default_hooks.checkpoint.out_dir={directory}')
    assert message.startswith(f'error: {directory}/refused/probe.unfinished (0 bytes) cannot be written: {cause}. ')
    assert 'Epoch(train)' not in (root / 'failed.log').read_text()


@pytest.mark.parametrize(('number', 'name'), [(1, 'epoch_1.pth'), (2, 'best_accuracy_top1_epoch_1.pth')])
def test_all_processes_end(root, number, name):
    """The main process fails to write; the other would wait for it without end."""
    logs, work_dir = ['rank_0.log', 'rank_1.log'], f'ranks_{number}'
    processes = [
        start(
            root,
            log,
            *(CONFIG, '--work-dir', work_dir, '--launcher', 'pytorch'),
            before=killing.refuse_write,
            arguments=(number, 'EDQUOT'),
            **environment,
        )
        for log, environment in zip(logs, ranks(2), strict=True)
    ]
    for process, log in zip(processes, logs, strict=True):
        printed = finish(process, root / log, code=2)
        assert f'error: {root / work_dir / name} (' in printed
        assert 'Traceback' not in printed


def test_what_a_killed_run_left_is_removed(root):
    work_dir = root / 'left'
    work_dir.mkdir()
    for name in ('epoch_2.pth.unfinished', 'last_checkpoint.unfinished', 'notes.unfinished'):
        (work_dir / name).write_bytes(b'half')
    printed = finish(
        start(root, 'left.log', CONFIG, '--work-dir', 'left', '--resume', '--cfg-options', 'train_cfg.max_epochs=1'),
        root / 'left.log',
    )
    assert (
        'Removed files that were not written completely: epoch_2.pth.unfinished, last_checkpoint.unfinished\n'
        in printed
    )
    assert [path.name for path in work_dir.glob('*.unfinished')] == ['notes.unfinished']
