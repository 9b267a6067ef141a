"""The console script: help, mistakes, exit statuses, and what it imports."""

import importlib
import signal
import subprocess
import sys

import pytest

import mmdefocus
from mmdefocus.apis.errors import UsageError
from mmdefocus.cli import main as program
from mmdefocus.cli.commands import completion, env
from mmdefocus.cli.main import COMMANDS, main


def ended(capsys, *words):
    """Return status, output and messages of a command that ends."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    return (stop.value.code or 0, *capsys.readouterr())


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_module_with_examples_that_its_own_parser_accepts(name, capsys):
    module = program.command_module(name)
    assert len(module.SUMMARY.splitlines()) == 1
    assert module.SUMMARY.endswith('.')
    status, out, _ = ended(capsys, name, '--help')
    assert status == 0
    assert module.EXAMPLES.strip() in out
    assert f'mmdefocus {name}' in module.EXAMPLES


def test_without_a_command_the_help_is_printed(capsys):
    main([])
    out = capsys.readouterr().out
    assert out == program.make_parser().format_help()
    for name in COMMANDS:
        assert f'\n    {name}' in out


@pytest.mark.parametrize(
    ('word', 'close'), [('trian', 'train'), ('check_data', 'check-data'), ('prediction', 'predict')]
)
def test_an_unknown_command_suggests_a_close_one(capsys, word, close):
    status, _, err = ended(capsys, word)
    assert status == 2
    assert f"got '{word}'; did you mean {close}" in err
    assert '"mmdefocus --help" explains the arguments' in err


def test_an_unknown_command_lists_all(capsys):
    status, _, err = ended(capsys, 'xyz')
    assert status == 2
    assert f"expected one of the commands {', '.join(COMMANDS)}, got 'xyz'; " in err


def test_the_version_is_that_of_the_package(capsys):
    assert ended(capsys, '--version')[:2] == (0, f'mmdefocus {mmdefocus.__version__}\n')


def test_ctrl_c_prints_one_line_and_ends_with_130(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(env, 'run', interrupted)
    assert ended(capsys, 'env') == (130, '', 'Stopped by Ctrl-C\n')


@pytest.mark.parametrize('light', [True, False])
def test_a_mistake_of_the_user_ends_with_2_and_no_traceback(capsys, monkeypatch, light):
    def refuse(args):
        raise UsageError('expected this, got that; do it')

    monkeypatch.setattr(env, 'run', refuse)
    monkeypatch.setattr(env, 'LIGHT', light)
    assert ended(capsys, 'env') == (2, '', 'error: expected this, got that; do it\n')


def test_a_missing_package_names_the_command_that_installs_it(capsys, monkeypatch):
    monkeypatch.setattr(env, 'LIGHT', False)
    monkeypatch.setattr(env, 'run', lambda args: importlib.import_module('no_such_package'))
    status, _, err = ended(capsys, 'env')
    assert status == 2
    assert "`mmdefocus env` needs the package 'no_such_package', which is not installed" in err
    assert "pip install 'mmdefocus[det]'" in err


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(env, 'run', lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(['env'])


def test_help_and_completion_import_neither_torch_nor_numpy():
    code = (
        'import sys\nfrom mmdefocus.cli.main import main\nmain([])\nmain(["completion", "bash"])\n'
        'print([name for name in ("torch", "numpy", "mmengine", "supervision") if name in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == '[]', done.stderr


def test_a_reader_that_ends_early_is_no_error():
    command = f'set -o pipefail; {sys.executable} -m mmdefocus completion bash | head -n 1'
    done = subprocess.run(['bash', '-c', command], capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 128 + signal.SIGPIPE)  # 0: everything fitted into the buffer of the pipe
    assert done.stderr == ''


def test_completion_without_shtab_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    monkeypatch.delitem(sys.modules, 'mmdefocus.cli.completion_script', raising=False)
    assert completion.LIGHT
    status, _, err = ended(capsys, 'completion', 'bash')
    assert status == 2
    assert 'completion needs shtab' in err
    assert 'pip install shtab' in err
