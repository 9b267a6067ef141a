"""Reading of checkpoint files without running code from them."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .container import ZIP_MAGIC, CheckpointError, check_container
from .stubs import HistoryBufferStub, NumpyArrayStub, UnsafePickleError, stubs_for

# A buffer that repeats one number may be larger than its file, up to this many bytes.
MAX_EXPANDED_BYTES = 2**20


def read_checkpoint(path: str | Path, map_location: Any = 'cpu', checksums: bool = True) -> Any:
    """Read a file of ``torch.save``: an official one, one of MMEngine, or any other that contains only data.

    The file is unpickled by ``torch.load(weights_only=True)``. Classes that torch does not know, such as the yacs
    config of the official files, become plain dictionaries; functions are never called. For files that you trust,
    allow further classes or functions with ``torch.serialization.add_safe_globals``.

    Args:
        path: File.
        map_location: As in ``torch.load``.
        checksums: Compare the checksums in the file; needless if its hash was compared.

    Returns:
        The content of the file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is not a checkpoint, is damaged, contains more than data, or has a tensor with NaN or
            infinite elements (except -inf, which attention masks have).
        RuntimeError: PyTorch is older than 2.6.
    """
    path = Path(path)
    check_container(path, checksums)
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        raise RuntimeError(
            'reading checkpoints safely needs PyTorch 2.6 or newer (before, weights_only=True could run code: '
            f'CVE-2025-32434), this is {torch.__version__}; upgrade PyTorch'
        )
    try:
        # torch can list the globals of the zip format only, which is that of the official files.
        with path.open('rb') as file:
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        stubs = stubs_for(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if is_zip else stubs_for()
        with torch.serialization.safe_globals(stubs):
            content = torch.load(path, map_location=map_location, weights_only=True)
        content = _Finisher(path.stat().st_size).finish(content)
        broken = find_non_finite(content)
    except Exception as error:  # A damaged pickle can fail in any way.
        raise CheckpointError(_explain(path, error)) from error
    if broken is not None:
        raise CheckpointError(
            f'{path}: {broken} has NaN or infinite elements, expected finite ones; the training diverged or the file '
            'is damaged: use an earlier checkpoint, or copy the file again'
        )
    return content


def find_non_finite(content: Any) -> str | None:
    """Return the dotted name of the first tensor with NaN or +inf in nested containers, or None."""
    # `seen` ends the search in containers that contain themselves.
    pending, seen = [('', content)], set()
    while pending:
        name, value = pending.pop()
        if isinstance(value, Tensor):
            if _is_broken(value):
                return name or 'the tensor'
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            pending += reversed([(f'{name}.{key}' if name else str(key), item) for key, item in items])
    return None


def _is_broken(tensor: Tensor) -> bool:
    if tensor.is_meta or tensor.layout != torch.strided or not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    if tensor.dtype.itemsize == 1:  # torch does not look for NaN in 8 bits
        tensor = tensor.float()
    if torch.isfinite(tensor).all():
        return False
    return tensor.is_complex() or bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())


def _explain(path: Path, error: Exception) -> str:
    # torch prepends advice to load the file unsafely.
    reason = str(error).rpartition('WeightsUnpickler error:')[2].strip()
    named = re.search(r'GLOBAL (\S+)', reason)
    if named or isinstance(error, UnsafePickleError):
        reason = f'it refers to {named.group(1)}' if named else reason
        return (
            f'{path} was not loaded: {reason}. A checkpoint may contain only data; no code from this file was run. If '
            'you trust the file, see torch.serialization.add_safe_globals'
        )
    reason = reason.partition('\n')[0]
    return f'{path} is damaged or not a checkpoint ({type(error).__name__}: {reason}); download or copy it again'


class _Finisher:
    """Replaces stubs by the real objects and checks the size of tensors."""

    def __init__(self, file_size: int) -> None:
        self.largest_tensor = max(file_size, MAX_EXPANDED_BYTES)
        # Container before and after, by id. A reference to the one before keeps its id from being reused.
        self.finished: dict[int, tuple[Any, Any]] = {}

    def finish(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self._check_size(value)
        if isinstance(value, (NumpyArrayStub, HistoryBufferStub)):
            return value.value
        if not isinstance(value, (dict, list)) and type(value) is not tuple:
            return value
        if id(value) not in self.finished:
            self.finished[id(value)] = (value, value)
            if isinstance(value, tuple):
                self.finished[id(value)] = (value, tuple(map(self.finish, value)))
            elif isinstance(value, list):
                value[:] = map(self.finish, value)
            else:
                self._finish_dict(value)
        return self.finished[id(value)][1]

    def _finish_dict(self, value: dict) -> None:
        if isinstance(value, OrderedDict):
            # Attributes other than `_metadata` of torch's state dicts could shadow the methods of the dictionary.
            attributes = {name: item for name, item in vars(value).items() if name == '_metadata'}
            vars(value).clear()
            vars(value).update(self.finish(attributes))
        for key, item in value.items():
            value[key] = self.finish(item)

    def _check_size(self, tensor: Tensor) -> None:
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > self.largest_tensor:
            raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is larger than the whole file')
