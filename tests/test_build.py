"""`python setup.py build_ext` with stand-ins for GPU, compilers and CUDA toolkit: what it compiles and says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the stand-ins are shell scripts')

# Notes its name and makes what it is asked for. Prints the versions that PyTorch wants to know before it compiles.
COMPILER = f"""#!/bin/bash
case "$*" in
    -dumpfullversion*) echo 12.2.0 ;;
    *--version*) echo "g++ (stand-in) 12.2.0, release {torch.version.cuda}, V{torch.version.cuda}.0" ;;
    *--list-gpu-code*) echo sm_90 ;;
    *)
        echo "$(basename "$0") $*" >>"$NOTES"
        while (($#)); do
            [[ $1 == -o ]] && mkdir -p "$(dirname "$2")" && touch "$2"
            shift
        done
        ;;
esac
"""
MACHINE = """
import os, torch
from torch.utils import cpp_extension
torch.cuda.is_available = lambda: os.environ['GPU'] == 'yes'
cpp_extension.CUDA_HOME = os.environ['TOOLKIT'] or None
torch.version.cuda = os.environ['CUDA_OF_TORCH'] or None
"""


def write_program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(COMPILER)
    path.chmod(0o755)
    return path


@pytest.fixture
def build(tmp_path):
    """Runs `python setup.py build_ext` in a checkout; returns the process and the notes of the compilers."""
    checkout = tmp_path / 'checkout'
    checkout.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, checkout / name)
    shutil.copytree(ROOT / 'mmdefocus' / 'ops' / 'csrc', checkout / 'mmdefocus' / 'ops' / 'csrc')
    shutil.copy(ROOT / 'mmdefocus' / '__init__.py', checkout / 'mmdefocus')
    (tmp_path / 'sitecustomize.py').write_text(MACHINE)
    compiler = write_program(tmp_path / 'g++')
    write_program(tmp_path / 'toolkit' / 'bin' / 'nvcc')
    notes = tmp_path / 'notes'
    notes.touch()

    def run(force_cuda: str | None, gpu: bool, toolkit: str | None = 'toolkit', cuda_of_torch: str = '13.0'):
        environment = {name: value for name, value in os.environ.items() if name != 'FORCE_CUDA'}
        environment.update(
            {} if force_cuda is None else {'FORCE_CUDA': force_cuda},
            CXX=str(compiler),
            CC=str(compiler),
            NOTES=str(notes),
            PYTHONPATH=str(tmp_path),
            PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
            GPU='yes' if gpu else 'no',
            TOOLKIT='' if toolkit is None else str(tmp_path / toolkit),
            CUDA_OF_TORCH=cuda_of_torch,
            TORCH_CUDA_ARCH_LIST='9.0',
        )
        command = [sys.executable, 'setup.py', 'build_ext', '--inplace']
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)
        return done, notes.read_text()

    return run


@pytest.mark.skipif(torch.version.cuda is None, reason='PyTorch without CUDA cannot compile for it')
@pytest.mark.parametrize(('force_cuda', 'gpu'), [(None, True), ('1', False)])
def test_cuda_is_compiled_where_a_gpu_is_visible_or_it_is_asked_for(build, force_cuda, gpu):
    done, compiled = build(force_cuda, gpu, cuda_of_torch=torch.version.cuda)
    assert done.returncode == 0, done.stderr
    assert 'nvcc ' in compiled
    assert '-DMMDEFOCUS_WITH_CUDA' in compiled
    assert 'for the CPU alone' not in done.stderr


@pytest.mark.parametrize(('force_cuda', 'gpu'), [('0', True), (None, False)])
def test_cuda_is_left_out_where_it_is_declined_or_no_gpu_is_visible(build, force_cuda, gpu):
    done, compiled = build(force_cuda, gpu)
    assert done.returncode == 0, done.stderr
    assert 'g++ ' in compiled
    assert 'nvcc ' not in compiled
    assert 'MMDEFOCUS_WITH_CUDA' not in compiled
    assert 'for the CPU alone' not in done.stderr, 'that is what was asked for'


NO_TOOLKIT = (dict(toolkit=None), 'no CUDA toolkit was found; install one, or set CUDA_HOME')
NO_NVCC = (dict(toolkit='empty'), '/empty/bin/nvcc is no program; install the CUDA toolkit or set CUDA_HOME')
TORCH_FOR_CPUS = (dict(cuda_of_torch=''), f'torch {torch.__version__} is built without CUDA')


@pytest.mark.parametrize(('machine', 'lacking'), [NO_TOOLKIT, NO_NVCC])
def test_a_gpu_that_nothing_can_compile_for_is_left_out_and_this_is_said(build, machine, lacking):
    done, compiled = build(None, gpu=True, **machine)
    assert done.returncode == 0, done.stderr
    assert 'mmdefocus is compiled for the CPU alone: a GPU is visible, but' in done.stderr
    assert lacking in done.stderr
    assert 'g++ ' in compiled
    assert 'nvcc ' not in compiled


@pytest.mark.parametrize(('machine', 'lacking'), [NO_TOOLKIT, NO_NVCC, TORCH_FOR_CPUS])
def test_cuda_that_is_asked_for_and_cannot_be_compiled_is_an_error(build, machine, lacking):
    done, compiled = build('1', gpu=machine != TORCH_FOR_CPUS[0], **machine)
    assert done.returncode == 1
    assert 'FORCE_CUDA=1 asks for the CUDA sources of mmdefocus, but' in done.stderr
    assert lacking in done.stderr.splitlines()[-1]
    assert not compiled


def test_other_values_are_refused(build):
    done, compiled = build('yes', gpu=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("0 (for the CPU alone) or unset, got 'yes'")
    assert not compiled
