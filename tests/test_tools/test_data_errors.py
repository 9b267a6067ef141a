"""Unusable data in a training: the tool prints one message without a traceback and ends with status 2."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import TOOLS, error_of

HERE = Path(__file__).parent


@pytest.fixture
def refused(monkeypatch, tmp_path, capsys) -> Callable[[str, Path], str]:
    """Train on a data root, and return the error message."""

    def refused(config: str, data_root: Path) -> str:
        words = [str(HERE / config), '--work-dir', str(tmp_path / 'run'), '--cfg-options', f'data_root={data_root}/']
        monkeypatch.setattr(sys, 'argv', ['train.py', *words])
        return error_of(capsys, runpy.run_path, str(TOOLS / 'train.py'), run_name='__main__')

    return refused


@pytest.fixture
def digits(tmp_path, digits_coco) -> Path:
    return Path(shutil.copytree(digits_coco, tmp_path / 'digits'))


def test_annotations_that_contradict_themselves(refused, digits):
    path = digits / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['category_id'] = 77
    path.write_text(json.dumps(content))
    assert "have a category_id that is not in the file's categories: 77" in refused('toy_dino.py', digits)


def test_a_missing_image(refused, digits):
    image = next((digits / 'train').iterdir())
    image.unlink()
    assert image.name in refused('toy_dino.py', digits)


def test_a_missing_annotation_file(refused, tmp_path):
    assert 'instances_train.json' in refused('toy_dino.py', tmp_path / 'nowhere')


def test_a_damaged_image(refused, digits):
    for image in (digits / 'train').iterdir():
        image.write_bytes(image.read_bytes()[:200])
    assert 'is truncated' in refused('toy_dino.py', digits)


def test_a_missing_folder_of_images(refused, tmp_path):
    assert 'does not exist (data_root=' in refused('toy_image_folder.py', tmp_path / 'nowhere')
