"""Files that are complete or absent, and their hashes."""

import errno
import os
import subprocess

import pytest

from mmdefocus.engine.safe_writing import DefocusLocalBackend, SavingError, hash_path, remove_unfinished, write_safely


def test_the_hash_is_in_the_format_of_sha256sum(tmp_path):
    write_safely(tmp_path / 'new' / 'epoch_1.pth', b'content', with_hash=True)
    done = subprocess.run(
        ['sha256sum', '--strict', '-c', 'epoch_1.pth.sha256'], cwd=tmp_path / 'new', capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, 'epoch_1.pth: OK\n')


def test_the_steps_come_in_the_order_that_survives_a_power_cut(tmp_path, monkeypatch):
    """Content to the disk, old hash away, rename, hash; after each change of the directory, the directory too."""
    path = tmp_path / 'epoch_1.pth'
    write_safely(path, b'old', with_hash=True)
    steps = []

    def note(name, function):
        def noted(*arguments):
            if name == 'fsync':
                steps.append(f'fsync {os.path.basename(os.readlink(f"/proc/self/fd/{arguments[0]}"))}')
            else:
                steps.append(f'{name} {os.path.basename(arguments[-1])}')
            return function(*arguments)

        return noted

    for name in ('fsync', 'replace', 'unlink'):
        monkeypatch.setattr(os, name, note(name, getattr(os, name)))
    write_safely(path, b'new', with_hash=True)
    steps = [step for step in steps if step.partition(' ')[0] != 'unlink' or not step.endswith('.unfinished')]
    directory = f'fsync {tmp_path.name}'
    assert steps == [
        *('fsync epoch_1.pth.unfinished', 'unlink epoch_1.pth.sha256', directory, 'replace epoch_1.pth', directory),
        *('fsync epoch_1.pth.sha256.unfinished', 'replace epoch_1.pth.sha256', directory),
    ]


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        (
            'ENOSPC',
            r'the disk is full \(No space left on device\)\. .* Free space, keep fewer files \(max_keep_ckpts\)',
        ),
        ('EDQUOT', r'the disk quota is used up \(Disk quota exceeded\)\. .* Free space'),
        (
            'EROFS',
            r'the file system is read-only .* Make it writable or save elsewhere \(default_hooks\.checkpoint\.out',
        ),
        ('EACCES', r'there is no permission \(Permission denied\)\. .* Change the permissions or save elsewhere'),
        ('EFBIG', r'the file is larger than the limit \(File too large\)\. .* Raise the limit \(ulimit -f\)'),
        ('EIO', r'the system reports an error \(Input/output error\)\. .* Check the disk'),
    ],
)
@pytest.mark.parametrize('step', ['fsync', 'replace'])
def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path, monkeypatch, step, code, message):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')

    def fail(*_):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(SavingError, match=rf'^{path} \(3 bytes\) cannot be written: {message}') as info:
        write_safely(path, b'new', with_hash=True)
    assert str(info.value).endswith('then continue with --resume')
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
    assert path.read_bytes() == b'old'


def test_a_file_system_that_synchronises_no_directories(tmp_path, monkeypatch):
    sync = os.fsync

    def refuse_directories(descriptor):
        if os.path.isdir(f'/proc/self/fd/{descriptor}'):
            raise OSError(errno.EINVAL, 'Invalid argument')
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', refuse_directories)
    write_safely(tmp_path / 'epoch_1.pth', b'new')
    assert (tmp_path / 'epoch_1.pth').read_bytes() == b'new'


def test_only_own_unfinished_files_are_removed(tmp_path):
    own = ['epoch_1.pth.unfinished', 'epoch_1.pth.sha256.unfinished', 'last_checkpoint.unfinished']
    others = ['epoch_1.pth', 'thesis.tex.unfinished']
    for name in own + others:
        (tmp_path / name).touch()
    assert sorted(remove_unfinished(tmp_path)) == sorted(own)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_file_is_removed_with_its_hash(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    backend = DefocusLocalBackend()
    backend.put(b'content', str(path))
    assert hash_path(path).is_file()
    backend.remove(str(path))
    assert list(tmp_path.iterdir()) == []
