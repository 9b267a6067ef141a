"""Builds `mmdefocus._ext`, the compiled operators. All metadata is in pyproject.toml.

Environment variables, as in mmcv: `FORCE_CUDA=1` compiles the CUDA sources although no GPU is visible, `FORCE_CUDA=0`
leaves them out although one is; without it they are compiled where a GPU is visible and nvcc is there.
`TORCH_CUDA_ARCH_LIST` names the architectures (default: those of the visible GPUs; without any, those of a release),
`MAX_JOBS` limits the parallel compiler processes. `MMDEFOCUS_STRICT=1` makes warnings errors and lets ptxas report.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths
except ImportError as error:
    raise SystemExit(
        f'mmdefocus compiles its operators against the installed PyTorch, but importing torch failed: {error}. '
        'Install torch first, then run: pip install --no-build-isolation -e .'
    ) from error

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / 'mmdefocus' / 'ops' / 'csrc'
RELEASE_ARCHITECTURES = ('8.0', '9.0', '10.0', '12.0')  # each also serves the later ones of its major version


def sources(folder: Path, *suffixes: str) -> list[str]:
    """Return the source files below ``folder``, relative to the root as setuptools expects them."""
    return sorted(str(path.relative_to(ROOT)) for path in folder.rglob('*') if path.suffix in suffixes)


def release_architectures(cuda_home: str) -> str:
    """The architectures of a release, as far as this CUDA toolkit knows them; and PTX, for GPUs that come later."""
    command = [os.path.join(cuda_home, 'bin', 'nvcc'), '--list-gpu-code']
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return ';'.join(name for name in RELEASE_ARCHITECTURES if f'sm_{name.replace(".", "")}' in known) + '+PTX'


def lacks_for_cuda() -> str:
    """What it takes to compile the CUDA sources and is not here; empty if nothing is missing."""
    if torch.version.cuda is None:
        return f'torch {torch.__version__} is built without CUDA'
    if CUDA_HOME is None:
        return 'no CUDA toolkit was found; install one, or set CUDA_HOME to where it is'
    nvcc = os.path.join(CUDA_HOME, 'bin', 'nvcc')
    return '' if shutil.which(nvcc) else f'{nvcc} is no program; install the CUDA toolkit or set CUDA_HOME'


def compiles_cuda() -> bool:
    asked = os.getenv('FORCE_CUDA', '')
    if asked not in ('', '0', '1'):
        raise SystemExit(f'FORCE_CUDA must be 1 (compile for CUDA), 0 (for the CPU alone) or unset, got {asked!r}')
    if asked == '0' or (not asked and not torch.cuda.is_available()):
        return False
    lacking = lacks_for_cuda()
    if lacking and asked:
        raise SystemExit(f'FORCE_CUDA=1 asks for the CUDA sources of mmdefocus, but {lacking}')
    if lacking:
        sys.stderr.write(f'mmdefocus is compiled for the CPU alone: a GPU is visible, but {lacking}\n')
    return not lacking


def extension():
    cpp = [str((CSRC / 'registration.cpp').relative_to(ROOT)), *sources(CSRC / 'cpu', '.cpp')]
    cxx = ['-O3', '-Wall', '-Wextra']
    nvcc = ['-O3', '-lineinfo']
    if os.getenv('MMDEFOCUS_STRICT', '0') == '1':
        torch_is_not_ours = [flag for path in include_paths() for flag in ('-isystem', path)]
        cxx += ['-Werror', *torch_is_not_ours]
        nvcc += ['-Werror', 'all-warnings', '-Xcompiler', '-Wall,-Wextra,-Werror', '--ptxas-options=-v']
        nvcc += torch_is_not_ours
    if sys.platform.startswith('linux'):
        # at::parallel_for is inlined here and is serial without -fopenmp. The runtime itself is not linked: its
        # symbols come from the one that libtorch loaded, so that torch.set_num_threads governs our threads too.
        cxx.append('-fopenmp')
    arguments = {
        'name': 'mmdefocus._ext',
        'include_dirs': [str(CSRC)],
        'depends': [str(path) for suffix in ('*.h', '*.cuh') for path in CSRC.rglob(suffix)],
    }
    if compiles_cuda():
        if not torch.cuda.is_available():
            os.environ.setdefault('TORCH_CUDA_ARCH_LIST', release_architectures(CUDA_HOME))
        return CUDAExtension(
            sources=cpp + sources(CSRC / 'cuda', '.cpp', '.cu'),
            define_macros=[('MMDEFOCUS_WITH_CUDA', None)],
            extra_compile_args={'cxx': cxx, 'nvcc': nvcc},
            **arguments,
        )
    return CppExtension(sources=cpp, extra_compile_args={'cxx': cxx}, **arguments)


setup(ext_modules=[extension()], cmdclass={'build_ext': BuildExtension})
