"""Tests of ``mmdefocus check-data``."""

import json
import shutil
from pathlib import Path

import pytest

from mmdefocus.apis.errors import UsageError
from mmdefocus.cli.commands import check_data
from mmdefocus.cli.main import main, make_parser
from mmdefocus.datasets.inspection import REPAIRS


def status_of(*words: str | Path) -> int:
    """Return the exit status of the command."""
    try:
        check_data.run(make_parser().parse_args(['check-data', *map(str, words)]))
    except SystemExit as stop:
        return int(str(stop.code))
    return 0


@pytest.fixture
def digits(digits_coco: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_coco, tmp_path / 'digits'))


@pytest.fixture
def broken(digits: Path) -> Path:
    path = digits / 'annotations/instances_train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['bbox'] = [500, 10, 20, 20]
    content['annotations'][1]['bbox'][0] = -10
    path.write_text(json.dumps(content))
    return digits


def test_data_without_errors(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(digits) == 0
    out = capsys.readouterr().out
    assert '\n0 errors, ' in out
    assert 'compared with the nano detectors: strides from 8 pixels, test images of 160 pixels' in out


def test_errors_are_the_status_and_the_json(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(broken, '--format', 'json', '--fast') == 1
    content = json.loads(capsys.readouterr().out)
    assert content['counts']['error'] == 1
    assert [one['kind'] for one in content['findings']][:1] == ['outside']
    assert content['settings']['images_read'] is False


def test_repaired_data_are_a_data_set(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (broken / 'annotations/instances_train.json').read_bytes()
    fixed = tmp_path / 'fixed'
    assert status_of(broken, '--repair', 'clip', 'empty', '--out', fixed) == 0
    out = capsys.readouterr().out
    assert 'clip: clipped 1 boxes to their image.' in out
    assert 'empty: dropped 1 boxes that are empty or outside their image.' in out
    assert 'After that: 0 errors' in out
    assert (broken / 'annotations/instances_train.json').read_bytes() == before
    content = json.loads((fixed / 'check/report.json').read_text())
    assert content['counts']['error'] == 1
    assert content['after']['counts']['error'] == 0
    assert '<html' in (fixed / 'check/index.html').read_text('utf-8')
    assert status_of(fixed, '--fast') == 0


def test_repair_of_one_mistake_leaves_the_others(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(broken, '--fast', '--repair', 'clip', '--out', tmp_path / 'fixed') == 1
    assert 'error: Boxes outside their image [train]' in capsys.readouterr().out
    assert status_of(broken, '--fast', '--repair', 'all', '--out', tmp_path / 'all') == 0


def test_page_and_part_for_validation(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (digits / 'annotations/instances_val.json').unlink()
    shutil.rmtree(digits / 'val')
    assert status_of(digits, '--val-fraction', '0.5', '--out', tmp_path / 'check') == 0
    content = json.loads((tmp_path / 'check/report.json').read_text())
    images = {split: numbers['images'] for split, numbers in content['splits'].items()}
    assert images.keys() == {'train', 'val'}
    assert sum(images.values()) == 4
    assert images['val'] > 0
    assert str(tmp_path / 'check/index.html') in capsys.readouterr().out


def test_sizes_of_a_model(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path('configs/dino/fcvit_nano_digits.py').resolve()
    status_of(digits, '--fast', '--format', 'json', '--model', config)
    content = json.loads(capsys.readouterr().out)
    expected = dict(strides=[8, 16, 32], image_size=[160, 160], max_objects=40, images_read=False)
    assert content['settings'] == expected


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--repair', 'clip'], '--repair needs --out FOLDER'),
        (['--repair', 'clips', '--out', 'x'], '--repair takes unreadable, .* or all, got clips'),
        (['--val-fraction', '2'], '--val-fraction must be between 0 and 1, got 2.0'),
    ],
)
def test_mistakes_in_the_request(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        status_of(tmp_path, *words)


def test_output_is_checked_before_the_images_are_read(broken: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(
        UsageError, match=r'--out needs a directory that can be written to, got .*/file. \(File exists\)'
    ):
        status_of(broken, '--out', tmp_path / 'file')
    with pytest.raises(UsageError, match=r'--out .* exists and is not empty; name a new folder'):
        status_of(broken, '--repair', 'clip', '--out', broken)


def test_mistakes_in_the_request_have_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(['check-data', str(tmp_path / 'none')])
    assert stop.value.code == 2
    assert 'does not exist' in capsys.readouterr().err


def test_help_lists_all_repairs() -> None:
    assert sorted(check_data._REPAIRS.split(', ')) == sorted(REPAIRS)
