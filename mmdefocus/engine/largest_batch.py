"""The largest images that the transforms of a training can produce."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmcv.image import rescale_size

Size = tuple[int, int]  # height, width
_Change = Callable[[Mapping[str, Any], Iterable[Size]], set[Size]]

# Transforms that keep the size of an image, beside those that load or pack it.
_KEEPING = {
    'AutoAugment',
    'AutoContrast',
    'BEiTMaskGenerator',
    'Brightness',
    'BrightnessTransform',
    'Collect',
    'Color',
    'ColorJitter',
    'ColorTransform',
    'Contrast',
    'CorruptTransform',
    'CutOut',
    'Equalize',
    'FilterAnnotations',
    'GaussianBlur',
    'GeomTransform',
    'Grayscale',
    'ImageToTensor',
    'Invert',
    'Lighting',
    'Normalize',
    'NumpyToPIL',
    'PhotoMetricDistortion',
    'PILToNumpy',
    'Posterize',
    'RandAugment',
    'RandomAffine',
    'RandomErasing',
    'RandomFlip',
    'RandomGrayscale',
    'RandomShift',
    'Rotate',
    'Sharpness',
    'Shear',
    'ShearX',
    'ShearY',
    'Solarize',
    'SolarizeAdd',
    'ToTensor',
    'Translate',
    'TranslateX',
    'TranslateY',
    'YOLOXHSVRandomAug',
}


@dataclass
class LargestImages:
    """Sizes of images behind the transforms.

    Attributes:
        sizes: Heights and widths in pixels that can occur; of random crops, a selection with the extremes.
        assumed: Names of transforms whose effect on the size is unknown; they are taken to keep it.
    """

    sizes: set[Size]
    assumed: list[str] = field(default_factory=list)

    @property
    def one(self) -> Size:
        """The size with the largest area."""
        return max(self.sizes, key=lambda size: (size[0] * size[1], size))

    @property
    def batch(self) -> Size:
        """The common size to which the images of a batch are padded, at most."""
        return max(height for height, _ in self.sizes), max(width for _, width in self.sizes)


def largest_images(pipeline: Sequence[Mapping[str, Any]], read_sizes: Callable[[], Iterable[Size]]) -> LargestImages:
    """Follow the sizes of images through the transforms of a training.

    Args:
        pipeline: Settings of the transforms.
        read_sizes: Returns the (height, width) of the images of the set; called only if the result depends on them.
    """
    result = LargestImages(set())
    result.sizes = _follow(pipeline, _Unread(read_sizes), result.assumed)
    return result


class _Unread:
    """The sizes of the files, which are read at the first use."""

    def __init__(self, read: Callable[[], Iterable[Size]]) -> None:
        self._read = read
        self._sizes: set[Size] | None = None

    def __iter__(self) -> Iterator[Size]:
        if self._sizes is None:
            self._sizes = set(self._read())
        return iter(self._sizes)


def _follow(pipeline: Sequence[Mapping[str, Any]], sizes: Iterable[Size], assumed: list[str]) -> set[Size]:
    for step in pipeline:
        sizes = _apply(step, sizes, assumed)
    return set(sizes)


def _apply(step: Mapping[str, Any], sizes: Iterable[Size], assumed: list[str]) -> Iterable[Size]:
    kind = step['type']
    name = (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2].rpartition('/')[2]
    if name in ('RandomChoice', 'RandomApply', 'Compose', 'RandomOrder', 'TransformBroadcaster'):
        transforms = step['transforms']
        if name == 'RandomChoice':
            branches = [branch if isinstance(branch, list | tuple) else [branch] for branch in transforms]
            return set().union(*(_follow(branch, sizes, assumed) for branch in branches))
        changed = _follow(transforms if isinstance(transforms, list | tuple) else [transforms], sizes, assumed)
        return changed | set(sizes) if name == 'RandomApply' else changed
    change = _CHANGES.get(name)
    if change is not None:
        return change(step, sizes)
    if name not in _KEEPING and not name.startswith(('Load', 'DefocusLoad', 'Pack')) and name not in assumed:
        assumed.append(name)
    return sizes


def _resize(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    if step.get('scale') is None:
        factor = step['scale_factor']
        across, down = (factor, factor) if isinstance(factor, int | float) else factor
        return {(int(height * down + 0.5), int(width * across + 0.5)) for height, width in sizes}
    return _scale(sizes, step['scale'], step.get('keep_ratio', False))


def _choice_resize(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    scales = step['scales']
    keep = (step.get('resize_cfg') or step).get('keep_ratio', False)
    return set().union(*(_scale(sizes, scale, keep) for scale in (scales if isinstance(scales, list) else [scales])))


def _random_resize(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    scale, keep = step['scale'], (step.get('resize_cfg') or step).get('keep_ratio', False)
    if isinstance(scale, list):
        return set().union(*(_scale(sizes, one, keep) for one in scale))
    factor = max(step.get('ratio_range') or (1.0,))
    return _scale(sizes, tuple(int(side * factor) for side in scale), keep)


def _scale(sizes: Iterable[Size], scale: int | Sequence[int], keep_ratio: bool) -> set[Size]:
    """Apply a scale of MMCV: a side, or width and height."""
    width, height = (scale, scale) if isinstance(scale, int) else scale
    if not keep_ratio:
        return {(height, width)}
    rescaled = (rescale_size((size[1], size[0]), (width, height)) for size in sizes)
    return {(tall, wide) for wide, tall in rescaled}


def _resize_edge(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    scale, edge = step['scale'], step.get('edge', 'short')
    found = set()
    for height, width in sizes:
        by_width = {'width': True, 'height': False, 'short': width < height, 'long': width >= height}[edge]
        found.add((int(height * scale / width), scale) if by_width else (scale, int(width * scale / height)))
    return found


def _exact(key: str) -> _Change:
    """Return the change of a transform whose argument is the result, a side or (width, height)."""

    def change(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
        side = step[key]
        return {(side, side) if isinstance(side, int) else (side[1], side[0])}

    return change


def _random_crop(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    crop, kind = step['crop_size'], step.get('crop_type', 'absolute')
    first, second = (crop, crop) if isinstance(crop, int | float) else crop
    # MMDetection takes (width, height), MMPreTrain (height, width).
    either = ((int(first), int(second)), (int(second), int(first)))
    if step.get('padding') is not None or step.get('pad_if_needed'):
        return set(either)
    found: set[Size] = set()
    for height, width in sizes:
        if kind == 'absolute':
            found |= {(min(height, tall), min(width, wide)) for tall, wide in either}
        elif kind == 'relative':
            found.add((int(height * second + 0.5), int(width * first + 0.5)))
        elif kind == 'absolute_range':
            tall, wide = (_between(min(side, first), min(side, second)) for side in (height, width))
            found |= {(h, w) for h in tall for w in wide}
        else:
            tall, wide = _between(height * second, height), _between(width * first, width)
            found |= {(h, w) for h in tall for w in wide}
    return found


def _between(low: float, high: float) -> set[int]:
    return {round(low + (high - low) * step / 8) for step in range(9)}


def _pad(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    padded = {(max(size), max(size)) for size in sizes} if step.get('pad_to_square') else set(sizes)
    if step.get('size') is not None:
        width, height = step['size']
        padded = {(max(height, size[0]), max(width, size[1])) for size in padded}
    divisor = step.get('size_divisor')
    if divisor:
        padded = {(-(-height // divisor) * divisor, -(-width // divisor) * divisor) for height, width in padded}
    return padded


def _expand(step: Mapping[str, Any], sizes: Iterable[Size]) -> set[Size]:
    ratio = max(step.get('ratio_range', (1, 4)))
    return set(sizes) | {(int(height * ratio), int(width * ratio)) for height, width in sizes}


_CHANGES: dict[str, _Change] = dict(
    Resize=_resize,
    RandomChoiceResize=_choice_resize,
    RandomResize=_random_resize,
    ResizeEdge=_resize_edge,
    FixShapeResize=lambda step, sizes: {(step['height'], step['width'])},
    RandomResizedCrop=_exact('scale'),
    EfficientNetRandomCrop=_exact('scale'),
    CenterCrop=_exact('crop_size'),
    EfficientNetCenterCrop=_exact('crop_size'),
    RandomCrop=_random_crop,
    MinIoURandomCrop=lambda step, sizes: set(sizes),
    Pad=_pad,
    Expand=_expand,
)
