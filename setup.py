"""Builds `mmdefocus._ext`, the compiled operators. All metadata is in pyproject.toml.

Environment variables, as in mmcv: `FORCE_CUDA=1` compiles the CUDA sources although no GPU is visible,
`TORCH_CUDA_ARCH_LIST` names the architectures, `MAX_JOBS` limits the parallel compiler processes.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension
except ImportError as error:
    raise SystemExit(
        f'mmdefocus compiles its operators against the installed PyTorch, but importing torch failed: {error}. '
        'Install torch first, then run: pip install --no-build-isolation -e .'
    ) from error

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / 'mmdefocus' / 'ops' / 'csrc'


def sources(folder: Path, *suffixes: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in folder.glob('*') if path.suffix in suffixes)


def extension():
    cpp = sources(CSRC, '.cpp') + sources(CSRC / 'cpu', '.cpp')
    cuda = sources(CSRC / 'cuda', '.cpp', '.cu')
    with_cuda = bool(cuda) and (torch.cuda.is_available() or os.getenv('FORCE_CUDA', '0') == '1')
    cxx = ['-O3', '-Wall', '-Wextra']
    if sys.platform.startswith('linux'):
        # at::parallel_for is inlined here and is serial without -fopenmp. The runtime itself is not linked: its
        # symbols come from the one that libtorch loaded, so that torch.set_num_threads governs our threads too.
        cxx.append('-fopenmp')
    arguments = {
        'name': 'mmdefocus._ext',
        'include_dirs': [str(CSRC)],
        'depends': [str(path) for path in CSRC.rglob('*.h')],
    }
    if with_cuda:
        return CUDAExtension(
            sources=cpp + cuda,
            define_macros=[('MMDEFOCUS_WITH_CUDA', None)],
            extra_compile_args={'cxx': cxx, 'nvcc': ['-O3']},
            **arguments,
        )
    return CppExtension(sources=cpp, extra_compile_args={'cxx': cxx}, **arguments)


setup(ext_modules=[extension()], cmdclass={'build_ext': BuildExtension})
