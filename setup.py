"""Build `mmdefocus._ext`, the compiled operators. All metadata is in pyproject.toml.

Environment variables, as in mmcv:

* `FORCE_CUDA=1` compiles the CUDA sources even if no GPU is visible, `FORCE_CUDA=0` omits them even if one is. By
  default they are compiled if a GPU is visible and nvcc is installed.
* `TORCH_CUDA_ARCH_LIST` names the architectures; the default is that of the visible GPUs or, without a GPU, a list that
  covers all recent ones.
* `MAX_JOBS` limits the number of parallel compiler processes.
* `MMDEFOCUS_STRICT=1` turns warnings into errors and makes ptxas report registers and spills.
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
RELEASE_ARCHITECTURES = ('8.0', '9.0', '10.0', '12.0')  # code for x.y also runs on later x.z of the same major version


def sources(folder: Path, *suffixes: str) -> list[str]:
    """Return the source files below ``folder``, relative to the root as setuptools expects them."""
    return sorted(str(path.relative_to(ROOT)) for path in folder.rglob('*') if path.suffix in suffixes)


def release_architectures(cuda_home: str) -> str:
    """Return the architectures of a release that this CUDA toolkit supports, with PTX for later GPUs."""
    command = [os.path.join(cuda_home, 'bin', 'nvcc'), '--list-gpu-code']
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return ';'.join(name for name in RELEASE_ARCHITECTURES if f'sm_{name.replace(".", "")}' in known) + '+PTX'


def missing_for_cuda() -> str:
    """Return the reason why the CUDA sources cannot be compiled here; empty if they can."""
    if torch.version.cuda is None:
        return f'torch {torch.__version__} is built without CUDA'
    if CUDA_HOME is None:
        return 'no CUDA toolkit was found; install one, or set CUDA_HOME to its folder'
    nvcc = os.path.join(CUDA_HOME, 'bin', 'nvcc')
    return '' if shutil.which(nvcc) else f'{nvcc} is not an executable; install the CUDA toolkit or set CUDA_HOME'


def compiles_cuda() -> bool:
    """Return True if the CUDA sources are to be compiled; exit if FORCE_CUDA=1 demands it and they cannot be."""
    requested = os.getenv('FORCE_CUDA', '')
    if requested not in ('', '0', '1'):
        raise SystemExit(
            f'expected FORCE_CUDA to be 1 (compile for CUDA), 0 (for the CPU only) or unset, got {requested!r}'
        )
    if requested == '0' or (not requested and not torch.cuda.is_available()):
        return False
    missing = missing_for_cuda()
    if missing and requested:
        raise SystemExit(f'FORCE_CUDA=1 requires the CUDA sources of mmdefocus to be compiled, but {missing}')
    if missing:
        sys.stderr.write(f'mmdefocus is compiled for the CPU only: a GPU is visible, but {missing}\n')
    return not missing


def extension():
    """Return the extension with the sources and flags that the environment selects."""
    cpp = [str((CSRC / 'registration.cpp').relative_to(ROOT)), *sources(CSRC / 'cpu', '.cpp')]
    cxx = ['-O3', '-Wall', '-Wextra']
    nvcc = ['-O3', '-lineinfo']
    if os.getenv('MMDEFOCUS_STRICT', '0') == '1':
        # Warnings in the headers of torch are not ours to fix.
        torch_as_system_headers = [flag for path in include_paths() for flag in ('-isystem', path)]
        cxx += ['-Werror', *torch_as_system_headers]
        nvcc += ['-Werror', 'all-warnings', '-Xcompiler', '-Wall,-Wextra,-Werror', '--ptxas-options=-v']
        nvcc += torch_as_system_headers
    if sys.platform.startswith('linux'):
        # at::parallel_for is inlined here and is serial without -fopenmp. The OpenMP runtime is not linked: its symbols
        # resolve to the runtime that libtorch has loaded, so that torch.set_num_threads governs our threads too.
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
