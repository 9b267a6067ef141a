"""Compile the extension with its CUDA kernels and report the registers and spills of every kernel.

No GPU is needed. Warnings are errors. The library is written to build/cuda and loaded from there, which reveals missing
symbols; the installed extension is not changed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / 'build' / 'cuda'
LOG = BUILD / 'compile.log'
CHECK = """
import sys, torch
torch.ops.load_library(sys.argv[1])
torch.ops.mmdefocus.missing_cuda_kernels
for name in ('defocus_scan', 'defocus_scan_backward', 'causal_conv1d', 'causal_conv1d_backward'):
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f'mmdefocus::{name}', 'CUDA'):
        sys.exit(f'mmdefocus::{name} has no CUDA kernel')
"""


def find_toolkit() -> str:
    """Return the folder of the CUDA toolkit; the nvcc on the PATH may be a link or a wrapper script."""
    if 'CUDA_HOME' in os.environ:
        return os.environ['CUDA_HOME']
    if shutil.which('nvcc') is None:
        sys.exit('nvcc not found; install a CUDA toolkit of the version that torch was built for')
    output = subprocess.run(
        ['nvcc', '--dryrun', '-x', 'cu', os.devnull], capture_output=True, text=True, check=False
    ).stderr
    top = re.search(r'TOP=(\S+)', output)
    if top is None:
        sys.exit(f'nvcc does not report the folder of its toolkit; set CUDA_HOME. Its output:\n{output}')
    return str(Path(top[1]).resolve())


def compile_extension(architectures: str) -> Path:
    """Build the extension with warnings as errors; return the path of the library."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    command = [sys.executable, 'setup.py', 'build_ext', '--build-temp', BUILD / 'objects', '--build-lib', BUILD / 'lib']
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',  # contains ninja
        'CUDA_HOME': find_toolkit(),
        'FORCE_CUDA': '1',
        'MMDEFOCUS_STRICT': '1',
        'TORCH_CUDA_ARCH_LIST': architectures,
    }
    with LOG.open('w') as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        messages = [line for line in LOG.read_text().splitlines() if re.search(r'\b(error|warning)\b', line)]
        sys.exit('\n'.join([*messages[:40], f'the CUDA sources do not compile without warnings; see {LOG}']))
    return next((BUILD / 'lib').glob('mmdefocus/_ext*'))


def resources(log: str) -> list[tuple[str, ...]]:
    """Return (kernel, architecture, registers, bytes spilled / reloaded) of every kernel in the output of ptxas."""
    names = subprocess.run(['c++filt'], input=log, capture_output=True, text=True, check=True).stdout
    pattern = re.compile(
        r"Compiling entry function '(?P<kernel>.*?)' for '(?P<architecture>\w+)'.*?"
        r'(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers',
        re.DOTALL,
    )
    rows = []
    for match in pattern.finditer(names):
        name = re.sub(r'^void |mmdefocus::cuda::|c10::|\(anonymous namespace\)::', '', match['kernel']).partition('(')[
            0
        ]
        spilled = f'{match["stores"]} / {match["loads"]}'
        rows.append((name, match['architecture'], match['registers'], spilled))
    return sorted(rows)


def print_table(rows: list[tuple[str, ...]]) -> None:
    header = ('kernel', 'for', 'registers', 'bytes spilled / reloaded')
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, tuple('-' * width for width in widths), *rows]:
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + ' |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--architectures', default='9.0', help='value of TORCH_CUDA_ARCH_LIST (default: 9.0)')
    args = parser.parse_args()
    library = compile_extension(args.architectures)
    rows = resources(LOG.read_text())
    if not rows:
        sys.exit(f'ptxas reported no kernel; see {LOG}')
    subprocess.run([sys.executable, '-c', CHECK, library], check=True)
    print_table(rows)


if __name__ == '__main__':
    main()
