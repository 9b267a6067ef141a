"""Backends of the operators: which ones can run on this machine, and which one a call uses.

* ``cuda``: CUDA kernels of the compiled extension ``mmdefocus._ext``, if it was built with CUDA.
* ``triton``: Triton kernels for GPU tensors. On CPU tensors they run only by name and in Triton's interpreter
  (``TRITON_INTERPRET=1``), which is meant for tests.
* ``mamba_ssm``: the CUDA scan of the package mamba-ssm, if that is installed.
* ``cpp``: CPU kernels of the extension.
* ``reference``: plain PyTorch on any device. It is the specification of the other backends, and slow: it loops over
  tokens in Python.

To add a backend, add its name to ``BACKENDS``, a predicate to ``_PREDICATES``, and the implementation to the operators
that have it.

A call uses the backend that its argument ``backend=`` names, else the one that the environment variable
``MMDEFOCUS_BACKEND`` names (if the operator has it), else the fastest one that can run on its tensors.
"""

import functools
import importlib
import importlib.util
import os
import shutil
from collections.abc import Collection, Mapping

import torch

__all__ = ['available_backends', 'choose_backend']

# From the fastest to the slowest.
BACKENDS = ('cuda', 'triton', 'mamba_ssm', 'cpp', 'reference')
ENVIRONMENT_VARIABLE = 'MMDEFOCUS_BACKEND'


def _load_extension() -> str | None:
    """Register the compiled operators; return the reason if that fails."""
    try:
        importlib.import_module('mmdefocus._ext')
    except ModuleNotFoundError:
        return (
            'the extension mmdefocus._ext is not built; run "make setup", or '
            '"pip install --no-build-isolation -e ." with a C++ compiler'
        )
    except ImportError as error:
        return (
            f'the extension mmdefocus._ext does not load ({error}); it was probably built for a torch other than '
            f'{torch.__version__}: rebuild it with "pip install --no-build-isolation -e ."'
        )
    return None


_NO_EXTENSION = _load_extension()
# Compile-time constants of the extension by name, such as 'cpu_scan_chunk'; empty without the extension.
KERNEL_CONSTANTS: Mapping[str, int] = {} if _NO_EXTENSION else torch.ops.mmdefocus.kernel_constants()
_HAS_TRITON = importlib.util.find_spec('triton') is not None
# Triton compiles the code that launches a kernel; triton/runtime/build.py looks for the compiler in these places.
_HAS_C_COMPILER = 'CC' in os.environ or any(shutil.which(name) for name in ('gcc', 'clang'))
_BUILT_WITH_CUDA = hasattr(torch.ops.mmdefocus, 'missing_cuda_kernels')


# torch.compile cannot trace calls of the CUDA runtime: it runs this function, and chooses as an eager call does.
@torch.compiler.assume_constant_result
@functools.cache
def _no_kernels_for_gpu(index: int) -> str | None:
    """Return the reason if the CUDA kernels of the extension cannot run on a GPU."""
    if not torch.cuda.is_available():
        return 'torch finds no CUDA GPU'
    message = torch.ops.mmdefocus.missing_cuda_kernels(index)
    if not message:
        return None
    major, minor = torch.cuda.get_device_capability(index)
    return (
        f'the extension has no kernels for {torch.cuda.get_device_name(index)} ({message}); rebuild it with '
        f'"TORCH_CUDA_ARCH_LIST={major}.{minor} FORCE_CUDA=1 pip install --no-build-isolation -e ."'
    )


def can_run_cuda(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """Return None if the compiled CUDA kernels can run, else the reason.

    Args:
        device: Device of the tensors; None asks about the machine.
        dtype: Type of the tensors; the kernels take float16, bfloat16 and float32.
    """
    if _NO_EXTENSION is not None:
        return _NO_EXTENSION
    if not _BUILT_WITH_CUDA:
        return (
            'the extension mmdefocus._ext is built without CUDA; with a CUDA toolkit, '
            '"FORCE_CUDA=1 pip install --no-build-isolation -e ." builds it with CUDA'
        )
    if device is not None and device.type != 'cuda':
        return f'its kernels run on CUDA tensors, got tensors on {device}'
    if dtype == torch.float64:
        return 'its kernels compute in float32, got float64'
    return _no_kernels_for_gpu(0 if device is None or device.index is None else device.index)


def can_run_triton(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """Return None if Triton kernels can run, else the reason.

    Args:
        device: Device of the tensors; None asks about the machine.
        dtype: Type of the tensors; the kernels take float16, bfloat16 and float32.
    """
    if not _HAS_TRITON:
        return 'Triton is not installed; "pip install triton" installs it'
    if dtype == torch.float64:
        return 'its kernels compute in float32, got float64'
    if os.environ.get('TRITON_INTERPRET') == '1':
        return None
    if device is not None and device.type != 'cuda':
        return (
            f'its kernels run on GPU tensors, got tensors on {device} (TRITON_INTERPRET=1 runs them there, for tests)'
        )
    if not torch.cuda.is_available():
        return 'torch finds no GPU'
    if not _HAS_C_COMPILER:
        return (
            'it needs a C compiler and the C headers of Python to launch kernels; "apt install gcc python3-dev" '
            'installs them, and the environment variable CC names a compiler with a different name'
        )
    return None


@functools.cache
def _no_mamba_ssm() -> str | None:
    """Return the reason if the compiled scan of mamba-ssm cannot be imported."""
    if importlib.util.find_spec('mamba_ssm') is None:
        return (
            'mamba-ssm is not installed; on a machine with a CUDA toolkit, '
            '"pip install --no-build-isolation mmdefocus[mamba]" installs it'
        )
    try:
        importlib.import_module('selective_scan_cuda')
    except ImportError as error:
        return (
            f'mamba-ssm is installed, but its compiled scan cannot be imported ({error}); reinstall it for this torch'
        )
    return None


def can_run_mamba_ssm(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """Return None if the compiled scan of mamba-ssm can run, else the reason.

    Args:
        device: Device of the tensors; None asks about the machine.
        dtype: Type of the tensors; the kernels take float16, bfloat16 and float32.
    """
    if device is not None and device.type != 'cuda':
        return f'its kernels run on CUDA tensors, got tensors on {device}'
    if dtype == torch.float64:
        return 'its kernels compute in float32, got float64'
    if torch.compiler.is_compiling():
        return 'torch.compile cannot trace its kernels'
    return _no_mamba_ssm() or (None if torch.cuda.is_available() else 'torch finds no CUDA GPU')


def can_run_reference(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """Return None: plain PyTorch runs on every device and in every type."""
    return None


def can_run_cpp(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """Return None if the compiled CPU kernels can run, else the reason.

    Args:
        device: Device of the tensors; None asks about the machine. Meta tensors give the shapes of the results.
        dtype: Type of the tensors; the kernels take all floating types.
    """
    if _NO_EXTENSION is not None:
        return _NO_EXTENSION
    if device is not None and device.type not in ('cpu', 'meta'):
        return f'its kernels run on CPU tensors, got tensors on {device}'
    return None


_PREDICATES = {
    'cuda': can_run_cuda,
    'triton': can_run_triton,
    'mamba_ssm': can_run_mamba_ssm,
    'cpp': can_run_cpp,
    'reference': can_run_reference,
}


def available_backends() -> dict[str, str | None]:
    """Return all backends by name, each with None if it can run, else with the reason."""
    return {name: _PREDICATES[name]() for name in BACKENDS}


def choose_backend(
    name: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    implemented: Collection[str] = BACKENDS,
    unsupported: Mapping[str, str | None] | None = None,
) -> str:
    """Return the requested backend, or else the fastest one that can run on ``device``.

    Arguments and errors are those of :func:`requested_backend`.
    """
    requested = requested_backend(name, device, dtype, implemented, unsupported)
    if requested is not None:
        return requested
    # On a CPU, Triton means its interpreter, which is for tests only.
    candidates = (x for x in BACKENDS if x in implemented and not (x == 'triton' and device.type != 'cuda'))
    return next(x for x in candidates if _unsupported_reason(x, device, dtype, unsupported) is None)


def requested_backend(
    name: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    implemented: Collection[str] = BACKENDS,
    unsupported: Mapping[str, str | None] | None = None,
) -> str | None:
    """Return the backend that the call or the environment requests; None if neither does.

    Args:
        name: Backend that the call names, or None. With None, ``MMDEFOCUS_BACKEND`` counts if it names a backend that
            the operator has: it applies to all operators, which do not all have the same backends.
        device: Device of the tensors.
        dtype: Type of the activations.
        implemented: Backends that have the operator.
        unsupported: By backend, the reason why it does not support the other arguments of the call (such as a kernel
            width), or None.

    Raises:
        ValueError: There is no backend of this name.
        RuntimeError: The named backend does not have the operator, or cannot run here; the message says why.
    """
    variable = os.environ.get(ENVIRONMENT_VARIABLE) if name is None else None
    name = name or variable
    if name is None:
        return None
    if name not in BACKENDS:
        origin = f'the environment variable {ENVIRONMENT_VARIABLE}' if variable else 'backend'
        raise ValueError(f'expected {origin} to be None or one of {", ".join(BACKENDS)}, got {name!r}')
    if name not in implemented:
        if variable:
            return None
        raise RuntimeError(f'backend {name!r} does not have this operator; those that do: {", ".join(implemented)}')
    reason = _unsupported_reason(name, device, dtype, unsupported)
    if reason is not None:
        raise RuntimeError(f'backend {name!r} cannot run: {reason}')
    return name


def _unsupported_reason(
    backend: str, device: torch.device, dtype: torch.dtype | None, unsupported: Mapping[str, str | None] | None
) -> str | None:
    return _PREDICATES[backend](device, dtype) or (unsupported or {}).get(backend)


def disallow_double_backward(op: str) -> None:
    """Make differentiating the gradient of ``op`` an error; torch would warn and return wrong numbers."""

    def disallow(ctx, *grad_outputs):
        raise RuntimeError(f"{op}: only the reference supports double backward; use backend='reference'")

    torch.library.register_autograd(f'mmdefocus::{op}_backward', disallow)
