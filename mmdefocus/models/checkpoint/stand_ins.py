"""What stands in a checkpoint for the globals that its pickle names.

``torch.load(weights_only=True)`` knows tensors, containers and numbers and refuses all other globals: nothing is
imported and nothing is called. What is added here lets more data in, and no code:

- An unknown class that is created and filled, as the yacs configs in official files are, becomes an ``OrderedDict``.
- An unknown global that is called, as a function must be to do anything, is refused.
- NumPy's numbers and arrays and MMEngine's ``HistoryBuffer``, which every checkpoint of a training has, are built by
  us from their numbers. MMEngine would allow ``getattr`` and NumPy's own constructors, which trust their input.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from mmengine.logging import HistoryBuffer

# Booleans, integers, floating-point and complex numbers, bytes and text; neither objects nor records.
_NUMPY_KINDS = 'biufcSU'


class RefusedError(Exception):
    """A pickle that asks for more than data. The message says for what."""


class _StandInType(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise RefusedError(f'it calls {cls.__name__}')


def _stand_in(name: str) -> type:
    # torch fills an object that is exactly an OrderedDict, but no subclass of it.
    return _StandInType(name, (), {'__new__': lambda cls, *args: OrderedDict()})


class NumpyDtype:
    """In place of ``numpy.dtype``."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.value = np.dtype(str(code))
        if self.value.kind not in _NUMPY_KINDS:
            raise RefusedError(f'it has a NumPy array of {self.value}, which is not numbers or text')

    def __setstate__(self, state: tuple) -> None:
        self.value = self.value.newbyteorder(state[1])


class NumpyArray:
    """In place of ``numpy.ndarray``; ``value`` is the real one."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        order: Literal['C', 'F'] = 'F' if is_fortran else 'C'
        array = np.frombuffer(data, dtype.value).reshape(shape, order=order)
        self.value = array.astype(dtype.value.newbyteorder('='), order=order)


class History:
    """In place of MMEngine's ``HistoryBuffer``, without the functions that it would register for all of its kind."""

    def __setstate__(self, state: dict) -> None:
        self._state = state

    @property
    def value(self) -> HistoryBuffer:
        log, counts = (self._state[name].value for name in ('_log_history', '_count_history'))
        return HistoryBuffer(log, counts, self._state['max_length'])


def _reconstruct(*_: Any) -> NumpyArray:
    return NumpyArray()


def _scalar(dtype: NumpyDtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.value)[0]


def _no_bytes() -> bytes:
    """In place of ``bytes``, which the content of an empty array calls without arguments."""
    return b''


def _getattr(owner: Any, name: str) -> None:
    """In place of ``getattr``, with which a ``HistoryBuffer`` names its methods."""
    if owner is not History:
        raise RefusedError('it calls getattr')


_KNOWN: dict[str, Any] = {
    'numpy.dtype': NumpyDtype,
    'numpy.ndarray': NumpyArray,
    # NumPy 2 and NumPy 1.
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray.scalar': _scalar,
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray.scalar': _scalar,
    'mmengine.logging.history_buffer.HistoryBuffer': History,
    'builtins.bytes': _no_bytes,
    'builtins.getattr': _getattr,
    'builtins.slice': slice,
}


def stand_ins(names: Iterable[str] = _KNOWN) -> list[Callable | tuple[Callable, str]]:
    """What ``torch.serialization.safe_globals`` takes, for the named globals; by default for the known ones."""
    return [(_KNOWN.get(name) or _stand_in(name), name) for name in names]
