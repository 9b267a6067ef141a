"""What a user may name as a model."""

import pytest
import torch

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.named_model import find_named_model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder ``nano`` in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'nano'
    folder.mkdir()
    return folder


def test_a_name_of_the_zoo_is_no_folder(folder):
    found = find_named_model('nano', 'detection')
    assert (found.name, found.in_zoo) == ('defocus_mamba_nano', True)


def test_a_folder_without_a_checkpoint(folder):
    with pytest.raises(UsageError, match="'nano' has no checkpoint"):
        find_named_model('./nano', 'detection')


def test_a_file_without_a_config(folder):
    torch.save(dict(state_dict={}), folder / 'weights.pth')
    with pytest.raises(UsageError, match='is of no training of MMEngine and has no config; give the config'):
        find_named_model(folder / 'weights.pth', 'detection')
