"""Output of the package on import and at the start of a tool."""

import sys
import warnings
from pathlib import Path

import mmengine.logging
import pytest
from commands import run, tool

from mmdefocus.openmmlab import without_onedl_note, without_their_warnings

STOCK = Path(__file__).parent / 'toy_detector.py'


def test_the_note_on_onedl_is_not_printed(tmp_path):
    imports = 'import mmdefocus.models, mmdefocus.datasets, mmdefocus.engine, mmdefocus.apis.inference'
    start = f'from mmdefocus.apis.runs.config_file import load_config; load_config({str(STOCK)!r})'
    for printed in (
        run(tmp_path, sys.executable, '-c', imports),
        *(run(tmp_path, sys.executable, '-c', f'import mmdefocus.{name}') for name in ('evaluation', 'apis.inference')),
        run(tmp_path, sys.executable, '-c', f'{start}; import mmdet.datasets, mmpretrain.datasets; print("begun")'),
        tool(tmp_path, 'test.py', '--help'),
    ):
        assert 'OneDL' not in printed
    assert 'usage: test.py' in printed


def test_other_messages_are_printed(capsys):
    print_log = mmengine.logging.print_log
    with without_onedl_note():
        mmengine.logging.print_log('Could not import OneDL. Skipping OneDL datasets.')
        mmengine.logging.print_log('Could not import something else')
    assert capsys.readouterr().out == 'Could not import something else\n'
    assert mmengine.logging.print_log is print_log


@pytest.mark.parametrize(('options', 'hidden'), [([], True), (['error'], False)])
def test_warnings_about_the_code_of_other_packages(options, hidden, monkeypatch):
    monkeypatch.setattr(sys, 'warnoptions', options)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter('always')
        with without_their_warnings():
            warnings.warn("You'd better set embed_dims in MultiScaleDeformAttention to a power of 2", stacklevel=1)
            warnings.warn('another warning', stacklevel=1)
    assert [str(one.message) for one in shown][-1] == 'another warning'
    assert len(shown) == (1 if hidden else 2)
