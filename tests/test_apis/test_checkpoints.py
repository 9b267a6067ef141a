"""Search for the checkpoint to resume in a directory; test_resume.py tests it through the tool."""

import pytest
import torch

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs import checkpoints


def save(path, epoch, iteration, **changes):
    meta = {'epoch': epoch, 'iter': iteration}
    torch.save({'meta': meta, 'state_dict': {}, 'message_hub': {}, 'optimizer': {}} | changes, path)


@pytest.fixture
def said(monkeypatch):
    messages = []
    monkeypatch.setattr(checkpoints, 'print_log', lambda message, **_: messages.append(message))
    return messages


def test_the_newest_by_its_content(tmp_path, said):
    save(tmp_path / 'a.pth', 3, 30)
    save(tmp_path / 'epoch_9.pth', 1, 10)
    save(tmp_path / 'z.pth', 2, 20)
    assert checkpoints.find_newest_checkpoint(tmp_path) == tmp_path / 'a.pth'
    save(tmp_path / 'best.pth', 4, 30)
    assert checkpoints.find_newest_checkpoint(tmp_path) == tmp_path / 'best.pth'
    assert said == []


def test_broken_and_foreign_files_are_skipped(tmp_path, said):
    (tmp_path / 'a.pth').write_bytes(b'broken')
    torch.save({'state_dict': {}}, tmp_path / 'b.pth')
    save(tmp_path / 'c.pth', 5, 50, optimizer=None)
    save(tmp_path / 'd.pth', 1, 10)
    assert checkpoints.find_newest_checkpoint(tmp_path) == tmp_path / 'd.pth'
    (message,) = said
    assert message.startswith('Skipped in the search for a checkpoint: ')
    assert 'a.pth' in message


def test_nothing_to_resume(tmp_path):
    assert checkpoints.find_newest_checkpoint(tmp_path / 'nowhere') is None
    torch.save({'state_dict': {}}, tmp_path / 'published.pth')
    assert checkpoints.find_newest_checkpoint(tmp_path) is None
    save(tmp_path / 'c.pth', 5, 50, optimizer=None, message_hub=None)
    with pytest.raises(UsageError, match=r'none of them can be resumed: .*c\.pth has no message_hub and opti'):
        checkpoints.find_newest_checkpoint(tmp_path)
    (tmp_path / 'c.pth').write_bytes(b'broken')
    with pytest.raises(UsageError, match=r'none of them can be resumed: .*c\.pth'):
        checkpoints.find_newest_checkpoint(tmp_path)
