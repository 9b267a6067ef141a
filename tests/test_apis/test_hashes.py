"""Checkpoints that differ from the hash beside them."""

import io
import shutil
from pathlib import Path

import pytest
import torch

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.checkpoints import check_checkpoint, find_newest_checkpoint
from mmdefocus.engine.safe_writing import hash_path, write_safely


@pytest.fixture
def work_dir(tmp_path) -> Path:
    """Three checkpoints of a training, with hashes."""
    for epoch in (1, 2, 3):
        content = io.BytesIO()
        state = dict(state_dict=dict(weight=torch.ones(1000) * epoch), message_hub={}, optimizer={})
        torch.save(state | dict(meta=dict(epoch=epoch, iter=10 * epoch)), content)
        write_safely(tmp_path / f'epoch_{epoch}.pth', content.getvalue(), with_hash=True)
    return tmp_path


def replace_weights(path: Path) -> None:
    """Change the file in a way that its own checksums do not show: another checkpoint under its name."""
    content = torch.load(path)
    content['state_dict']['weight'] += 1
    torch.save(content, path)


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [replace_weights, flip_byte])
def test_the_newest_intact_checkpoint_is_resumed(work_dir, caplog, damage):
    damage(work_dir / 'epoch_3.pth')
    with caplog.at_level('WARNING'):
        assert find_newest_checkpoint(work_dir) == work_dir / 'epoch_2.pth'


def test_a_checkpoint_that_is_named_must_match(work_dir):
    path = work_dir / 'epoch_3.pth'
    check_checkpoint(str(path), to_resume=True)
    replace_weights(path)
    with pytest.raises(
        UsageError, match=r'epoch_3\.pth does not match its hash in epoch_3\.pth\.sha256: one of them was'
    ):
        check_checkpoint(str(path))
    hash_path(path).unlink()
    check_checkpoint(str(path))


def test_a_damaged_hash_is_an_error(work_dir):
    path = work_dir / 'epoch_3.pth'
    hash_path(path).write_bytes(b'\xff')
    with pytest.raises(
        UsageError, match=r'Copy both again, or delete epoch_3\.pth\.sha256 if you changed the checkpoint'
    ):
        check_checkpoint(str(path))


def test_a_moved_or_renamed_file_matches_its_hash(work_dir):
    for path in (work_dir / 'epoch_3.pth', work_dir / 'epoch_3.pth.sha256'):
        shutil.copy(path, work_dir / path.name.replace('epoch_3', 'mine'))
    check_checkpoint(str(work_dir / 'mine.pth'))


def test_checkpoints_without_hashes_are_compared_with_their_own_checksums(work_dir):
    for path in work_dir.glob('*.sha256'):
        path.unlink()
    flip_byte(work_dir / 'epoch_3.pth')
    assert find_newest_checkpoint(work_dir) == work_dir / 'epoch_2.pth'


def test_only_the_newest_file_is_read_completely(work_dir, monkeypatch):
    read = []
    monkeypatch.setattr('mmdefocus.apis.runs.checkpoints.sha256', lambda path: read.append(path.name))
    with pytest.raises(UsageError, match='none of them can be resumed'):
        find_newest_checkpoint(work_dir)
    assert read == ['epoch_3.pth', 'epoch_2.pth', 'epoch_1.pth']
    for epoch in (1, 2):
        hash_path(work_dir / f'epoch_{epoch}.pth').unlink()
    monkeypatch.undo()
    (work_dir / 'epoch_3.pth').touch()
    assert find_newest_checkpoint(work_dir) == work_dir / 'epoch_3.pth'
