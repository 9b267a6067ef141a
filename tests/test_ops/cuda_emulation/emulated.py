"""The CUDA operators on CPU tensors: their sources, compiled for the CPU against the CUDA stubs in this folder.

Importing this module builds the library, which takes about a minute; later imports load it until a source changes.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

import mmdefocus.ops  # noqa: F401 - declares the operators whose schemas are reused

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CSRC = ROOT / 'mmdefocus' / 'ops' / 'csrc'
BUILD = ROOT / 'build' / 'cuda_emulation'
NAMES = ('defocus_scan', 'defocus_scan_backward', 'causal_conv1d', 'causal_conv1d_backward')
# _FORTIFY_SOURCE forbids jumps between the stacks of fibers; strict aliasing forbids shared memory of several types.
# -O1 compiles twice as fast as -O2.
FLAGS = ['-O1', '-fno-strict-aliasing', '-U_FORTIFY_SOURCE', '-Wno-unknown-pragmas', '-Wno-attributes']


def _library() -> Path:
    """Return the path of the library, which contains a hash of its sources; the file need not exist yet."""
    folders = (HERE, CSRC / 'common', CSRC / 'cuda')
    files = [path for folder in folders for path in sorted(folder.rglob('*')) if path.suffix != '.pyc']
    text = [torch.__version__, *FLAGS, *(path.read_text() for path in files if path.is_file())]
    return BUILD / f'emulated_{hashlib.sha256("".join(text).encode()).hexdigest()[:16]}.so'


def _build(library: Path) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    os.environ['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'  # contains ninja
    # A temporary folder, because the lock file of an interrupted build would block every later build.
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        sources = [path for path in sorted((CSRC / 'cuda').rglob('*.cpp')) if path.name != 'registration.cpp']
        for kernels in sorted((CSRC / 'cuda').rglob('*.cu')):
            # A copy named .cpp, because torch gives .cu files to nvcc.
            sources.append(Path(folder, f'{kernels.parent.name}_{kernels.stem}_emulated.cpp'))
            sources[-1].write_text(f'#include "{kernels}"\n')
        load(
            'emulated',
            [str(path) for path in [*sources, *sorted(HERE.glob('*.cpp'))]],
            extra_cflags=FLAGS,
            extra_include_paths=[str(HERE / 'include'), str(HERE), str(CSRC)],
            build_directory=folder,
            is_python_module=False,
        )
        for outdated in BUILD.glob('emulated_*.so'):
            outdated.unlink(missing_ok=True)
        Path(folder, 'emulated.so').rename(library)


def _load() -> torch.library.Library:
    library = _library()
    if library.exists():
        torch.ops.load_library(library)
    else:
        _build(library)
    declarations = torch.library.Library('mmdefocus_emulated', 'FRAGMENT')
    for name in NAMES:
        schema = str(getattr(torch.ops.mmdefocus, name).default._schema)
        declarations.define(schema.removeprefix('mmdefocus::'))
    return declarations


_DECLARATIONS = _load()
OPS = torch.ops.mmdefocus_emulated


class _DefocusScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments):
        y, last_state, *saved = OPS.defocus_scan(*arguments)
        ctx.save_for_backward(*arguments[:11], *saved)
        ctx.options = arguments[11:]
        ctx.set_materialize_grads(False)
        return y, last_state

    @staticmethod
    def backward(ctx, grad_y, grad_last_state):
        tensors, saved = ctx.saved_tensors[:11], ctx.saved_tensors[11:]
        grad_y = torch.zeros_like(tensors[0]) if grad_y is None else grad_y
        results = OPS.defocus_scan_backward(grad_y, grad_last_state, *tensors, *ctx.options, *saved)
        gradients = [*results[:9], None, results[9]]  # positions have none
        return *(None if given is None else g for g, given in zip(gradients, tensors, strict=True)), None, None, None


class _CausalConv1d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, silu):
        ctx.save_for_backward(x, weight, bias)
        ctx.silu = silu
        return OPS.causal_conv1d(x, weight, bias, silu)

    @staticmethod
    def backward(ctx, grad_y):
        x, weight, bias = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = OPS.causal_conv1d_backward(grad_y, x, weight, bias, ctx.silu)
        return grad_x, grad_weight, None if bias is None else grad_bias, None


def defocus_scan(tensors, delta_scale, group_size, eps):
    """Compute :func:`mmdefocus.ops.defocus_scan` by the emulated kernels."""
    return _DefocusScan.apply(*tensors, delta_scale, group_size, eps)


def causal_conv1d(x, weight, bias, silu):
    """Compute :func:`mmdefocus.ops.causal_conv1d` by the emulated kernels."""
    return _CausalConv1d.apply(x, weight, bias, silu)
