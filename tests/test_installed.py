"""The package as pip installs it from a wheel, away from the checkout: its files and its commands."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the stub of the compiler is a shell script')

# Makes empty objects: the compiled operators of the checkout take their place, since compiling takes minutes.
COMPILER = """#!/bin/bash
case "$*" in
    -dumpfullversion*) echo 12.2.0 ;;
    *--version*) echo "g++ (stub) 12.2.0" ;;
    *) while (($#)); do [[ $1 == -o ]] && mkdir -p "$(dirname "$2")" && touch "$2"; shift; done ;;
esac
"""
OPTIONAL = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'supervision', 'faster_coco_eval', 'triton', 'torchvision')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    checkout = folder / 'checkout'
    without = shutil.ignore_patterns('*.so', '__pycache__')
    for name in ('mmdefocus', 'configs'):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=without)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in', 'model-index.yml'):
        shutil.copy(ROOT / name, checkout / name)
    compiler = folder / 'g++'
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = {**os.environ, 'CXX': str(compiler), 'CC': str(compiler), 'FORCE_CUDA': '0'}
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '-w', folder, '.']
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel):
    """Folder of a package that was installed with ``pip install --target``."""
    target = wheel.parent / 'target'
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--target', target, wheel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (extension,) = (ROOT / 'mmdefocus').glob('_ext*.so')
    shutil.copy(extension, target / 'mmdefocus' / extension.name)
    return target


@pytest.fixture
def run(installed, tmp_path):
    """Run the console script in an empty folder; return its output."""

    def call(*words, path=''):
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        environment['PYTHONPATH'] = os.pathsep.join(filter(None, (path, str(installed))))
        environment['OMP_NUM_THREADS'] = '1'
        command = [installed / 'bin' / 'mmdefocus', *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert str(ROOT) not in done.stdout + done.stderr
        return done.stdout

    return call


def test_the_wheel_has_all_data_files(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'mmdefocus').rglob('*')
        if path.is_file() and path.suffix not in ('.py', '.pyc', '.so') and 'csrc' not in path.parts
    ]
    configs = [f'mmdefocus/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.py')]
    assert len(configs) > 50
    assert {*data, *configs, 'mmdefocus/.mim/model-index.yml'} - names == set()
    assert sum(name.startswith('mmdefocus/apis/example/') for name in names) >= 4  # checkpoint and pictures


def test_the_environment_is_printed_with_torch_alone(run, tmp_path):
    blocked = tmp_path / 'blocked'
    blocked.mkdir()
    (blocked / 'sitecustomize.py').write_text(f'import sys\nsys.modules.update(dict.fromkeys({OPTIONAL}))\n')
    found = json.loads(run('env', '--json', path=str(blocked)))
    assert {found[name] for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')} == {'not installed'}
    assert found['operator backends']['cpp'] == 'can run'


def test_the_models_are_listed(run):
    assert 'defocus_mamba_base' in run('models')


def test_the_example_finds_digits_in_pictures_of_the_package(run, tmp_path):
    out = run('predict', '--example', '--device', 'cpu', '--out', 'found', '--json', 'found.json')
    results = json.loads((tmp_path / 'found.json').read_text())
    pictures = sorted((tmp_path / 'found').iterdir())
    assert len(pictures) == 3
    assert len(results) > 3
    assert f'3 images, {len(results)} objects' in out
    assert len(re.findall(r'^  0\.\d+  \d ', out, re.MULTILINE)) == len(results)
