"""Which implementations of the operators can run here, and the choice between them.

* ``reference``: plain PyTorch, any device; a Python loop over time, so slow. It is the specification of the others.
* ``cpp``: the compiled extension ``mmdefocus._ext``, on CPU tensors.

The choice is, in this order: the argument ``backend=`` of an operator, the environment variable
``MMDEFOCUS_BACKEND``, the fastest one that can run on the tensors.
"""

import importlib
import os
from collections.abc import Collection

import torch

__all__ = ['available_backends', 'choose_backend']

# From the fastest to the slowest.
BACKENDS = ('cpp', 'reference')
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


_PREDICATES = {'reference': can_run_reference, 'cpp': can_run_cpp}


def available_backends() -> dict[str, str | None]:
    """All backends by name, each with None where it can run or with the reason why it cannot."""
    return {name: _PREDICATES[name]() for name in BACKENDS}


def choose_backend(
    name: str | None, device: torch.device, dtype: torch.dtype | None = None, implemented: Collection[str] = BACKENDS
) -> str:
    """The backend for tensors on ``device``.

    Args:
        name: a backend to use whatever its speed. None: the one that ``MMDEFOCUS_BACKEND`` names, or else the fastest
            that can run.
        device: where the tensors are.
        dtype: type of the activations.
        implemented: backends that have the operator.

    Raises:
        ValueError: there is no backend of this name.
        RuntimeError: the named backend does not have the operator, or cannot run here; the message says why.
    """
    origin = 'backend'
    if name is None and os.environ.get(ENVIRONMENT_VARIABLE):
        name, origin = os.environ[ENVIRONMENT_VARIABLE], f'the environment variable {ENVIRONMENT_VARIABLE}'
    if name is None:
        return next(
            candidate
            for candidate in BACKENDS
            if candidate in implemented and _PREDICATES[candidate](device, dtype) is None
        )
    if name not in BACKENDS:
        raise ValueError(f'expected {origin} to be None or one of {", ".join(BACKENDS)}, got {name!r}')
    if name not in implemented:
        raise RuntimeError(f'backend {name!r} does not have this operator; those that do: {", ".join(implemented)}')
    obstacle = _PREDICATES[name](device, dtype)
    if obstacle is not None:
        raise RuntimeError(f'backend {name!r} cannot run: {obstacle}')
    return name


def refuse_second_derivatives(op: str) -> None:
    """Makes a derivative of the compiled gradient of ``op`` an error; torch would warn and return wrong numbers."""

    def refuse(ctx, *gradients):
        raise RuntimeError(f"{op}: second derivatives of the compiled kernel are not there; use backend='reference'")

    torch.library.register_autograd(f'mmdefocus::{op}_backward', refuse)
