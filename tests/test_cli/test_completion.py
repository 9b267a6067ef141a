"""What bash completes after its script was read."""

import shutil
import subprocess

import pytest

from mmdefocus.apis.zoo_table import CLASSIFIERS, DETECTORS
from mmdefocus.cli.completion_script import completion_script

ASK = """
source "$1"; shift
COMP_WORDS=(mmdefocus "$@"); COMP_CWORD=$#
_shtab_mmdefocus
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope='module')
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp('completion') / 'mmdefocus.bash'
    path.write_text(completion_script('bash'))
    return path


@pytest.fixture
def complete(script, tmp_path):
    """Complete the last word, in a folder with a few files."""
    (tmp_path / 'shelf.jpg').touch()
    (tmp_path / 'shots').mkdir()
    (tmp_path / 'default.pth').touch()

    def ask(*words):
        command = ['bash', '-c', ASK, 'bash', str(script), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return set(done.stdout.split())

    return ask


def test_commands_and_options_complete(complete):
    assert complete('pre') == {'predict'}
    assert {'env', 'completion', 'predict'} <= complete('')
    assert complete('predict', '--thr') == {'--threshold'}
    assert complete('completion', '') == {'bash', 'zsh', 'tcsh'}
    assert complete('predict', '--task', 'd') == {'detection'}


def test_a_model_completes_names_of_the_zoo_and_files(complete):
    names = {row[0] for row in (*DETECTORS, *CLASSIFIERS)}
    assert complete('predict', 'def') == {name for name in names if name.startswith('def')} | {'default.pth'}


def test_images_and_files_complete_files_and_folders_only_folders(complete):
    assert complete('predict', 'default.pth', 'sh') == {'shelf.jpg', 'shots'}
    assert complete('predict', 'default.pth', 'def') == {'default.pth'}
    assert complete('predict', '--weights', 'sh') == {'shelf.jpg', 'shots'}
    assert complete('predict', '--out', 'sh') == {'shots'}


@pytest.mark.parametrize('shell', ['zsh', 'tcsh'])
def test_scripts_of_other_shells_name_commands_and_models(shell):
    text = completion_script(shell)
    assert 'predict' in text
    assert shell != 'zsh' or 'defocus_mamba_nano' in text


@pytest.mark.skipif(shutil.which('zsh') is None, reason='zsh is not installed')
def test_zsh_accepts_its_script(tmp_path):
    (tmp_path / '_mmdefocus').write_text(completion_script('zsh'))
    done = subprocess.run(['zsh', '-n', tmp_path / '_mmdefocus'], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, '')
