"""Precompile PyTorch's C++ header, which every one of the many source files of mmcv includes.

    CFLAGS='-O1 -g0' python tools/precompile_torch_header.py DIRECTORY

Print the path of a header for the option `-include` of GCC. GCC uses the precompiled form beside the header (about
430 MB) only if all compiler flags match, and reads the plain header otherwise: flags that differ cost time, not
correctness. Exit with 1 if the compiler is not GCC.
"""

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.sysconfig import customize_compiler
from torch.utils.cpp_extension import get_cxx_compiler, include_paths


def is_gcc(compiler: list[str]) -> bool:
    macros = subprocess.run(
        [*compiler, '-dM', '-E', '-x', 'c++', '/dev/null'], capture_output=True, text=True, check=True
    ).stdout
    return '__GNUC__' in macros and '__clang__' not in macros


def precompile(compiler: list[str], folder: Path) -> Path:
    header = folder / 'torch_types.h'
    folder.mkdir(parents=True, exist_ok=True)
    header.write_text('#include <torch/types.h>\n', encoding='utf-8')
    flags = new_compiler()
    customize_compiler(flags)
    command = [
        *compiler,
        *flags.compiler_so[1:],
        *(f'-I{path}' for path in [*include_paths(), sysconfig.get_path('include')]),
        '-DTORCH_API_INCLUDE_EXTENSION_H',
        '-DTORCH_EXTENSION_NAME=_ext',
        '-std=c++17',
        *('-x', 'c++-header', str(header), '-o', f'{header}.gch'),
    ]
    subprocess.run(command, check=True)
    return header


def main() -> int:
    compiler = shlex.split(get_cxx_compiler())
    if not is_gcc(compiler):
        print('not GCC: compiling without a precompiled header', file=sys.stderr)
        return 1
    print(precompile(compiler, Path(sys.argv[1]).resolve()))
    return 0


if __name__ == '__main__':
    sys.exit(main())
