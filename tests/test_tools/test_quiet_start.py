"""Output of the package on import and at the start of a tool."""

import sys
from pathlib import Path

import mmengine.logging
from commands import run, tool

from mmdefocus.openmmlab import without_onedl_note

STOCK = Path(__file__).parent / 'toy_detector.py'


def test_the_note_on_onedl_is_not_printed(tmp_path):
    imports = 'import mmdefocus.models, mmdefocus.datasets, mmdefocus.engine, mmdefocus.apis.inference'
    start = f'from mmdefocus.cli.config_file import load_config; load_config({str(STOCK)!r})'
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
