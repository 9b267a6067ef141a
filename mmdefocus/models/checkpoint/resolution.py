"""The published rule for using weights at an image size other than that of their training.

From side s0 to side s, ``delta_scale`` grows by s / s0 and ``rope_scale`` by (s / s0)², the ratio of the numbers of
tokens. A backbone saves its image size and scales in the metadata of PyTorch's state dict, which adds no key to it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Scale = float | Literal['auto']
METADATA_KEY = 'resolution'


@dataclass(frozen=True)
class Resolution:
    """Image size and scales of a backbone.

    Attributes:
        height, width: Image size of a classifier in pixels; the nominal one of a detector, which the rule ignores.
        rope_scale, delta_scale: As in the backbone; a classifier's are numbers.
        pretrain_size: As in the backbone.
        is_detector: True if the output is a feature map.
    """

    height: int
    width: int
    rope_scale: Scale
    delta_scale: Scale
    pretrain_size: int | None = None
    is_detector: bool = False

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, self.pretrain_size or 1)
        scales = (self.rope_scale, self.delta_scale)
        numbers = [scale for scale in scales if scale != 'auto']
        if not all(isinstance(size, int) and size > 0 for size in sizes) or not all(
            isinstance(number, (int, float)) and 0 < number < math.inf for number in numbers
        ):
            raise ValueError(f"expected sizes in pixels and positive scales or 'auto', got {self}")
        if numbers != [*scales] and not self.is_detector:
            raise ValueError(f'expected numbers as scales of a classifier, got {self}')

    def to_metadata(self) -> dict[str, Any]:
        """Return plain data for the metadata of the state dict."""
        return asdict(self)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> 'Resolution | None':
        """Read the entry that :meth:`to_metadata` writes from a module's ``metadata``; None if it is missing."""
        entry = metadata.get(METADATA_KEY)
        try:
            return None if entry is None else cls(**entry)
        except TypeError as error:
            raise ValueError(
                f'expected image size and scales in the metadata of the state dict, got {entry}'
            ) from error


def scales_by_rule(trained: Resolution, used: Resolution) -> tuple[Scale, Scale] | None:
    """Return the ``rope_scale`` and ``delta_scale`` with which weights keep their filters at another image size.

    Args:
        trained: Training of the weights.
        used: Network that loads them; its scales are ignored.

    Returns:
        Numbers for a classifier. ``'auto'`` for a detector with weights of a classifier: its images differ in size,
        and as published the scales are relative to the size of the classifier. Unchanged scales from detector to
        detector. None from detector to classifier, for which there is no rule.
    """
    if trained.is_detector:
        return (trained.rope_scale, trained.delta_scale) if used.is_detector else None
    if used.is_detector:
        return 'auto', 'auto'
    assert trained.rope_scale != 'auto'
    assert trained.delta_scale != 'auto'
    ratio = used.height * used.width / (trained.height * trained.width)
    return trained.rope_scale * ratio, trained.delta_scale * math.sqrt(ratio)
