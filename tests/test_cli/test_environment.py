import subprocess
import sys

import pytest
import torch

from mmdefocus.cli import environment as program


def test_the_command_prints_versions_and_backends():
    result = subprocess.run([sys.executable, '-m', 'mmdefocus', 'env'], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line.strip())
    assert rows['torch'].startswith(torch.__version__)
    assert rows['mmcv._ext'] == 'loads'
    assert rows['reference'] == 'can run'
    assert rows['cpp'] == 'can run'


def test_report_shows_why_a_backend_cannot_run(monkeypatch):
    monkeypatch.setattr(program, 'available_backends', lambda: {'reference': None, 'cpp': 'it is not built'})
    assert 'cpp          cannot run: it is not built' in program.environment_as_text()


def test_missing_package_is_reported():
    assert program.describe_package('no_such_package', ('no-such-package',)) == 'not installed'


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        ('import no_such_dependency', "does not import: No module named 'no_such_dependency'"),
        ('raise ImportError("undefined symbol: _ZN3c10")', 'does not import: ImportError: undefined symbol: _ZN3c10'),
        ('raise ImportError', 'does not import: ImportError: '),
    ],
)
def test_broken_package_is_reported_with_its_error(tmp_path, monkeypatch, source, expected):
    (tmp_path / 'broken_package.py').write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert program.describe_package('broken_package', ()) == expected


def test_missing_compiler_is_reported(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert "'no-such-compiler' not found" in program.environment_as_text()
