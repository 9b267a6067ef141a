"""Stubs for the classes and functions that the pickle of a checkpoint refers to.

``torch.load(weights_only=True)`` accepts tensors, containers and numbers and rejects all other globals without
importing or calling them. The stubs let it read more data, but still no code:

- An unknown class that is created and filled, such as the yacs config in official files, becomes an ``OrderedDict``.
- A call of an unknown function or class is rejected: a pickle can do harm only through calls.
- NumPy's numbers and arrays and MMEngine's ``HistoryBuffer``, which every checkpoint of a training has, are rebuilt
  from their raw data. MMEngine's loader allows ``getattr`` and NumPy's own constructors, which trust their input.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from mmengine.logging import HistoryBuffer

# Booleans, integers, floating-point and complex numbers, bytes and text; neither objects nor records.
_NUMPY_KINDS = 'biufcSU'


class UnsafePickleError(Exception):
    """Raised for a pickle that contains more than data. The message names the offending part."""


class _StubType(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise UnsafePickleError(f'it calls {cls.__name__}')


def _unknown_stub(name: str) -> type:
    # torch fills an object that is exactly an OrderedDict, but no subclass of it.
    return _StubType(name, (), {'__new__': lambda cls, *args: OrderedDict()})


class NumpyDtypeStub:
    """Replacement of ``numpy.dtype``; ``value`` is the real one."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.value = np.dtype(str(code))
        if self.value.kind not in _NUMPY_KINDS:
            raise UnsafePickleError(f'it has a NumPy array of {self.value}, which is neither numbers nor text')

    def __setstate__(self, state: tuple) -> None:
        self.value = self.value.newbyteorder(state[1])


class NumpyArrayStub:
    """Replacement of ``numpy.ndarray``; ``value`` is the real one."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        order: Literal['C', 'F'] = 'F' if is_fortran else 'C'
        array = np.frombuffer(data, dtype.value).reshape(shape, order=order)
        self.value = array.astype(dtype.value.newbyteorder('='), order=order)


class HistoryBufferStub:
    """Replacement of MMEngine's ``HistoryBuffer``, which would register functions from the file for the whole class."""

    def __setstate__(self, state: dict) -> None:
        self._state = state

    @property
    def value(self) -> HistoryBuffer:
        log, counts = (self._state[name].value for name in ('_log_history', '_count_history'))
        return HistoryBuffer(log, counts, self._state['max_length'])


def _reconstruct(*_: Any) -> NumpyArrayStub:
    return NumpyArrayStub()


def _scalar(dtype: NumpyDtypeStub, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.value)[0]


def _no_bytes() -> bytes:
    """Replacement of ``bytes``, which the pickle of an empty array calls without arguments."""
    return b''


def _getattr(owner: Any, name: str) -> None:
    """Replacement of ``getattr``, by which the pickle of a ``HistoryBuffer`` refers to its methods."""
    if owner is not HistoryBufferStub:
        raise UnsafePickleError('it calls getattr')


_KNOWN: dict[str, Any] = {
    'numpy.dtype': NumpyDtypeStub,
    'numpy.ndarray': NumpyArrayStub,
    # NumPy 2 and NumPy 1.
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray.scalar': _scalar,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBufferStub,
    'builtins.bytes': _no_bytes,
    'builtins.getattr': _getattr,
    'builtins.slice': slice,
}


def stubs_for(names: Iterable[str] = _KNOWN) -> list[Callable | tuple[Callable, str]]:
    """Return stubs in the form that ``torch.serialization.safe_globals`` expects.

    Args:
        names: Qualified names of globals; by default those that checkpoints of a training refer to.
    """
    return [(_KNOWN.get(name) or _unknown_stub(name), name) for name in names]
