"""Sources and messages of `python setup.py build_ext`, with stubs for the GPU, the compilers and the CUDA toolkit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the stubs are shell scripts')

# Logs its command line and creates the output file. Prints the versions that PyTorch checks before it compiles.
COMPILER = f"""#!/bin/bash
case "$*" in
    -dumpfullversion*) echo 12.2.0 ;;
    *--version*) echo "g++ (stub) 12.2.0, release {torch.version.cuda}, V{torch.version.cuda}.0" ;;
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
    """Run `python setup.py build_ext` in a checkout; return the process and the log of the compilers."""
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
def test_cuda_is_compiled_if_a_gpu_is_visible_or_force_cuda_is_1(build, force_cuda, gpu):
    done, compiled = build(force_cuda, gpu, cuda_of_torch=torch.version.cuda)
    assert done.returncode == 0, done.stderr
    assert 'nvcc ' in compiled
    assert '-DMMDEFOCUS_WITH_CUDA' in compiled
    assert 'for the CPU only' not in done.stderr


def test_every_source_is_compiled_and_shipped(build):
    """Sources and headers at every depth of csrc; the sources below cuda/ only with CUDA."""
    _, compiled = build('0', gpu=False)
    csrc = ROOT / 'mmdefocus' / 'ops' / 'csrc'
    cpp = [path for path in csrc.rglob('*.cpp') if 'cuda' not in path.relative_to(csrc).parts]
    assert len(cpp) > 5
    for path in cpp:
        assert str(path.relative_to(ROOT)) in compiled
    assert 'csrc/cuda/' not in compiled
    assert 'graft mmdefocus/ops/csrc' in (ROOT / 'MANIFEST.in').read_text().splitlines()


@pytest.mark.parametrize(('force_cuda', 'gpu'), [('0', True), (None, False)])
def test_cuda_is_omitted_if_no_gpu_is_visible_or_force_cuda_is_0(build, force_cuda, gpu):
    done, compiled = build(force_cuda, gpu)
    assert done.returncode == 0, done.stderr
    assert 'g++ ' in compiled
    assert 'nvcc ' not in compiled
    assert 'MMDEFOCUS_WITH_CUDA' not in compiled
    assert 'for the CPU only' not in done.stderr


NO_TOOLKIT = (dict(toolkit=None), 'no CUDA toolkit was found; install one, or set CUDA_HOME')
NO_NVCC = (dict(toolkit='empty'), '/empty/bin/nvcc is not an executable; install the CUDA toolkit or set CUDA_HOME')
TORCH_FOR_CPUS = (dict(cuda_of_torch=''), f'torch {torch.__version__} is built without CUDA')


@pytest.mark.parametrize(('machine', 'missing'), [NO_TOOLKIT, NO_NVCC])
def test_a_gpu_without_toolkit_gives_a_cpu_build_and_a_message(build, machine, missing):
    done, compiled = build(None, gpu=True, **machine)
    assert done.returncode == 0, done.stderr
    assert 'mmdefocus is compiled for the CPU only: a GPU is visible, but' in done.stderr
    assert missing in done.stderr
    assert 'g++ ' in compiled
    assert 'nvcc ' not in compiled


@pytest.mark.parametrize(('machine', 'missing'), [NO_TOOLKIT, NO_NVCC, TORCH_FOR_CPUS])
def test_force_cuda_without_toolkit_is_an_error(build, machine, missing):
    done, compiled = build('1', gpu=machine != TORCH_FOR_CPUS[0], **machine)
    assert done.returncode == 1
    assert 'FORCE_CUDA=1 requires the CUDA sources of mmdefocus to be compiled, but' in done.stderr
    assert missing in done.stderr.splitlines()[-1]
    assert not compiled


def test_other_values_of_force_cuda_are_errors(build):
    done, compiled = build('yes', gpu=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("0 (for the CPU only) or unset, got 'yes'")
    assert not compiled
