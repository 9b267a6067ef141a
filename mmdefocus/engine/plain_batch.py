"""Batches as plain values, so that a file with them can be read without running code, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, LabelData, PixelData
from torch import Tensor

from mmdefocus.openmmlab import are_installed

_KIND = '<kind>'
_PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.Size)


def to_plain(value: Any) -> Any:
    """Convert a batch to dictionaries, lists, tuples, numbers, text and tensors on the CPU.

    Args:
        value: Tensors, arrays, MMEngine's data elements (samples), mmdet's boxes and masks, and containers of them.

    Returns:
        Plain values that :func:`from_plain` converts back.

    Raises:
        TypeError: A value has another type.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return stored(value)
    if isinstance(value, np.ndarray):
        return {_KIND: 'ndarray', 'tensor': torch.from_numpy(value.copy())}
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_plain, value)) if type(value) in (list, tuple) else tuple(map(to_plain, value))
    if isinstance(value, BaseDataElement):
        fields, info = dict(value.items()), dict(value.metainfo_items())
        return {_KIND: _name_of(value, _elements()), 'metainfo': to_plain(info), 'fields': to_plain(fields)}
    attributes = _box_and_mask_attributes().get(type(value).__name__)
    if attributes is not None:
        return {_KIND: type(value).__name__, 'values': [to_plain(getattr(value, name)) for name in attributes]}
    raise TypeError(f'a batch with a {type(value).__module__}.{type(value).__name__} cannot be saved')


def from_plain(value: Any, device: torch.device) -> Any:
    """Convert the result of :func:`to_plain` back.

    Args:
        value: Plain values.
        device: Device of the tensors.

    Returns:
        The batch.

    Raises:
        ValueError: The values name a class that is not one of those of :func:`to_plain`, or is not installed.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(item, device) for item in value)
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: from_plain(item, device) for key, item in value.items()}
    kind = value[_KIND]
    if kind == 'ndarray':
        return value['tensor'].numpy()
    if kind in _elements():
        element = _elements()[kind](metainfo=from_plain(value['metainfo'], device))
        element.set_data(from_plain(value['fields'], device))
        return element
    if kind in _box_and_mask_attributes():
        return _box_and_mask_class(kind)(*from_plain(value['values'], device))
    raise ValueError(f'the batch holds a {kind!r}, which the packages installed here do not have')


def stored(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU whose file needs no more bytes than its values."""
    tensor = tensor.detach().cpu()
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def tensors_of(value: Any, in_samples: bool = True) -> Iterator[Tensor]:
    """Yield all tensors of a batch, of arguments or of a result, with or without those in samples (annotations)."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_of(list(value.values()), in_samples)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item, in_samples)
    elif isinstance(value, BaseDataElement) and in_samples:
        yield from tensors_of(value.all_values())


def image_paths(value: Any) -> list[str]:
    """Return the files of the images of a batch; without a path, the image's number in the data set."""
    if isinstance(value, BaseDataElement):
        info = dict(value.metainfo_items())
        name = next((info[key] for key in ('img_path', 'img_id', 'sample_idx') if info.get(key) is not None), None)
        return ['unknown' if name is None else str(name)]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [name for item in value for name in image_paths(item)] if isinstance(value, (list, tuple)) else []


def _elements() -> dict[str, type[BaseDataElement]]:
    classes: list[type[BaseDataElement]] = [BaseDataElement, InstanceData, LabelData, PixelData]
    if are_installed('mmdet'):
        from mmdet.structures import DetDataSample

        classes.append(DetDataSample)
    if are_installed('mmpretrain'):
        from mmpretrain.structures import DataSample, MultiTaskDataSample

        classes += [DataSample, MultiTaskDataSample]
    return {cls.__name__: cls for cls in classes}


def _name_of(element: BaseDataElement, known: dict[str, type[BaseDataElement]]) -> str:
    return next(cls.__name__ for cls in type(element).__mro__ if cls in known.values())


def _box_and_mask_attributes() -> dict[str, tuple[str, ...]]:
    """Return the names of the attributes from which mmdet's boxes and masks are built, by class."""
    if not are_installed('mmdet'):
        return {}
    masks = ('masks', 'height', 'width')
    return dict(HorizontalBoxes=('tensor',), BitmapMasks=masks, PolygonMasks=masks)


def _box_and_mask_class(name: str) -> Any:
    from mmdet.structures import bbox, mask

    return getattr(bbox, name, None) or getattr(mask, name)
