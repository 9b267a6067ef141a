"""Which implementations of the operators can run here, and the choice between them.

* ``cuda``: the CUDA kernels of the compiled extension ``mmdefocus._ext``, if it was built with them.
* ``triton``: Triton kernels, on a GPU; the choice there for what the extension has no CUDA kernels for. On a CPU they
  run in Triton's interpreter, with ``TRITON_INTERPRET=1`` and by name only: it is for tests.
* ``mamba_ssm``: the CUDA scan of the package mamba-ssm, if it is installed.
* ``cpp``: the CPU kernels of the extension.
* ``reference``: plain PyTorch, any device; a Python loop over time, so slow. It is the specification of the others.

A further backend needs its name in ``BACKENDS``, a predicate in ``_PREDICATES``, and a place among the implementations
of the operators that it has.

The choice is, in this order: the argument ``backend=`` of an operator, the environment variable
``MMDEFOCUS_BACKEND`` (where it names one that the operator has), the fastest one that can run on the tensors.
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
    """Registers the compiled operators; returns why that is impossible."""
    try:
        importlib.import_module('mmdefocus._ext')
    except ModuleNotFoundError:
        return (
            'the extension mmdefocus._ext is not built; run "make setup", or '
            '"pip install --no-build-isolation -e ." with a C++ compiler'
        )
    except ImportError as error:
        return (
            f'the extension mmdefocus._ext does not load ({error}); it was probably built for another torch than '
            f'{torch.__version__}: rebuild it with "pip install --no-build-isolation -e ."'
        )
    return None


_EXTENSION_OBSTACLE = _load_extension()
_HAS_TRITON = importlib.util.find_spec('triton') is not None
# Triton compiles what launches a kernel; where it looks is in triton/runtime/build.py.
_HAS_C_COMPILER = 'CC' in os.environ or any(shutil.which(name) for name in ('gcc', 'clang'))
_BUILT_WITH_CUDA = hasattr(torch.ops.mmdefocus, 'missing_cuda_kernels')


@functools.cache
def _gpu_obstacle(index: int) -> str | None:
    """Why the CUDA kernels of the extension cannot run on a GPU."""
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
    """None where the compiled CUDA kernels run, else the reason why they do not.

    Args:
        device: where the tensors are; None asks for the machine as such.
        dtype: type of the tensors; float16, bfloat16 and float32 are there.
    """
    if _EXTENSION_OBSTACLE is not None:
        return _EXTENSION_OBSTACLE
    if not _BUILT_WITH_CUDA:
        return (
            'the extension mmdefocus._ext is built without CUDA; with a CUDA toolkit, '
            '"FORCE_CUDA=1 pip install --no-build-isolation -e ." builds it with CUDA'
        )
    if device is not None and device.type != 'cuda':
        return f'its kernels run on CUDA tensors, got tensors on {device}'
    if dtype == torch.float64:
        return 'its kernels compute in float32, got float64'
    if torch.compiler.is_compiling():  # a trace cannot ask the CUDA runtime
        return None
    return _gpu_obstacle(0 if device is None or device.index is None else device.index)


def can_run_triton(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """None where Triton kernels run, else the reason why they do not.

    Args:
        device: where the tensors are; None asks for the machine as such.
        dtype: type of the tensors; float16, bfloat16 and float32 are there.
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
            'installs them, and the environment variable CC names a compiler of another name'
        )
    return None


@functools.cache
def _mamba_ssm_obstacle() -> str | None:
    """Why the compiled scan of mamba-ssm cannot be imported."""
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
    """None where the compiled scan of mamba-ssm runs, else the reason why it does not.

    Args:
        device: where the tensors are; None asks for the machine as such.
        dtype: type of the tensors; float16, bfloat16 and float32 are there.
    """
    if device is not None and device.type != 'cuda':
        return f'its kernels run on CUDA tensors, got tensors on {device}'
    if dtype == torch.float64:
        return 'its kernels compute in float32, got float64'
    if torch.compiler.is_compiling():
        return 'torch.compile cannot trace its kernels'
    return _mamba_ssm_obstacle() or (None if torch.cuda.is_available() else 'torch finds no CUDA GPU')


def can_run_reference(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """None: plain PyTorch runs on every device and in every type."""
    return None


def can_run_cpp(device: torch.device | None = None, dtype: torch.dtype | None = None) -> str | None:
    """None where the compiled CPU kernels run, else the reason why they do not.

    Args:
        device: where the tensors are; None asks for the machine as such. Meta tensors give the shapes of the results.
        dtype: type of the tensors; all are there.
    """
    if _EXTENSION_OBSTACLE is not None:
        return _EXTENSION_OBSTACLE
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
    """All backends by name, each with None where it can run or with the reason why it cannot."""
    return {name: _PREDICATES[name]() for name in BACKENDS}


def choose_backend(
    name: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    implemented: Collection[str] = BACKENDS,
    limits: Mapping[str, str | None] | None = None,
) -> str:
    """The backend for tensors on ``device``: the one that is asked for, or else the fastest that can run.

    Arguments and errors are those of :func:`requested_backend`.
    """
    requested = requested_backend(name, device, dtype, implemented, limits)
    if requested is not None:
        return requested
    # Triton's interpreter is for tests; nobody else wants it on a CPU.
    candidates = (x for x in BACKENDS if x in implemented and not (x == 'triton' and device.type != 'cuda'))
    return next(x for x in candidates if _obstacle(x, device, dtype, limits) is None)


def requested_backend(
    name: str | None,
    device: torch.device,
    dtype: torch.dtype | None = None,
    implemented: Collection[str] = BACKENDS,
    limits: Mapping[str, str | None] | None = None,
) -> str | None:
    """The backend that a call or the environment asks for, whatever its speed; None where neither does.

    Args:
        name: the backend that the call names, or None. Then ``MMDEFOCUS_BACKEND`` counts, where it names a backend that
            has the operator: it speaks to all operators, and not all have the same backends.
        device: where the tensors are.
        dtype: type of the activations.
        implemented: backends that have the operator.
        limits: by backend, what is wrong with other arguments of the operator for it (a width that its kernels do not
            have), or None.

    Raises:
        ValueError: there is no backend of this name.
        RuntimeError: the named backend does not have the operator, or cannot run here; the message says why.
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
    obstacle = _obstacle(name, device, dtype, limits)
    if obstacle is not None:
        raise RuntimeError(f'backend {name!r} cannot run: {obstacle}')
    return name


def _obstacle(
    backend: str, device: torch.device, dtype: torch.dtype | None, limits: Mapping[str, str | None] | None
) -> str | None:
    return _PREDICATES[backend](device, dtype) or (limits or {}).get(backend)


def refuse_second_derivatives(op: str) -> None:
    """Makes a derivative of the gradient of ``op`` an error; torch would warn and return wrong numbers."""

    def refuse(ctx, *gradients):
        raise RuntimeError(f"{op}: second derivatives are in the reference only; use backend='reference'")

    torch.library.register_autograd(f'mmdefocus::{op}_backward', refuse)
