"""Reading a checkpoint without running anything that is in it."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .container import ZIP_MAGIC, CheckpointError, check_container
from .stand_ins import History, NumpyArray, RefusedError, stand_ins

# Buffers that repeat one number may be larger than their file, but not by much.
SMALL = 2**20


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Read a file of ``torch.save``: an official one, one of MMEngine, or any other that holds data only.

    The file is unpickled by ``torch.load(weights_only=True)``. Classes that torch does not know, such as the yacs
    config of the official files, become plain dictionaries; functions are never called. To let more in, and only for
    files that you trust, name the classes or functions to ``torch.serialization.add_safe_globals``.

    Args:
        path: File.
        map_location: As in ``torch.load``.

    Returns:
        The content of the file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is no checkpoint, is damaged, asks for more than data, or has a tensor with NaN or
            infinite elements (-inf excepted, which attention masks have).
        RuntimeError: PyTorch is older than 2.6.
    """
    path = Path(path)
    check_container(path)
    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        raise RuntimeError(
            'reading checkpoints safely needs PyTorch 2.6 or newer (before, weights_only=True could run code: '
            f'CVE-2025-32434), this is {torch.__version__}; upgrade PyTorch'
        )
    try:
        # torch cannot list the globals of its older format, which is not that of the official files.
        with path.open('rb') as file:
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        extras = stand_ins(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if is_zip else stand_ins()
        with torch.serialization.safe_globals(extras):
            content = torch.load(path, map_location=map_location, weights_only=True)
        content = _Finisher(path.stat().st_size).finish(content)
    except Exception as error:  # A damaged pickle can fail in any way.
        raise CheckpointError(_explain(path, error)) from error
    broken = find_non_finite(content)
    if broken is not None:
        raise CheckpointError(
            f'{path}: {broken} has NaN or infinite elements; the training diverged or the file is damaged'
        )
    return content


def find_non_finite(content: Any) -> str | None:
    """Dotted name of the first tensor with NaN or +inf in nested containers; None if there is none."""
    # Elements of a tuple, list or dictionary; one that holds itself is looked at once.
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
    if torch.isfinite(tensor).all():
        return False
    return tensor.is_complex() or bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())


def _explain(path: Path, error: Exception) -> str:
    # torch puts its advice to load the file unsafely before the reason.
    reason = str(error).rpartition('WeightsUnpickler error:')[2].strip()
    named = re.search(r'GLOBAL (\S+)', reason)
    if named or isinstance(error, RefusedError):
        reason = f'it names {named.group(1)}' if named else reason
        return (
            f'{path} is refused: {reason}. A checkpoint may hold data only, and nothing in this file was run. For what '
            'you trust, see torch.serialization.add_safe_globals'
        )
    reason = reason.partition('\n')[0]
    return f'{path} is damaged or no checkpoint ({type(error).__name__}: {reason}); download or copy it again'


class _Finisher:
    """Puts real objects in place of their stand-ins and checks the size of tensors."""

    def __init__(self, file_size: int) -> None:
        self.largest_tensor = max(file_size, SMALL)
        # By id, the container before and after. The one before is kept so that no other object gets its id.
        self.finished: dict[int, tuple[Any, Any]] = {}

    def finish(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self._check_size(value)
        if isinstance(value, (NumpyArray, History)):
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
            # Other attributes than that of torch's state dicts could hide the methods of the dictionary.
            attributes = {name: item for name, item in vars(value).items() if name == '_metadata'}
            vars(value).clear()
            vars(value).update(self.finish(attributes))
        for key, item in value.items():
            value[key] = self.finish(item)

    def _check_size(self, tensor: Tensor) -> None:
        if tensor.layout == torch.strided and tensor.numel() * tensor.element_size() > self.largest_tensor:
            raise ValueError(f'a tensor of shape {tuple(tensor.shape)} is larger than the whole file')
