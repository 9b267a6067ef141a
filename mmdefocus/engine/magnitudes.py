"""What a search for non-finite values needs to know of a tensor."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Magnitudes:
    """Summary of a floating-point tensor.

    Attributes:
        shape: Its shape.
        dtype: Name of its type, such as ``bfloat16``.
        largest: Largest magnitude; infinite or NaN if any value is.
        smallest: Smallest magnitude of the values that are not NaN.
    """

    shape: tuple[int, ...]
    dtype: str
    largest: float
    smallest: float

    @property
    def finite(self) -> bool:
        """Return True if no value is infinite or NaN."""
        return math.isfinite(self.largest)


def is_float(value: object) -> bool:
    """Return True for a tensor with at least one number of a floating-point type that can be summarised."""
    return isinstance(value, Tensor) and value.dtype in _TYPES and value.layout == torch.strided and value.numel() > 0


def is_finite(tensor: Tensor) -> bool:
    """Return True if no value is infinite or NaN; wait for the GPU."""
    return bool(tensor.isfinite().all())


def largest_of(summaries: Iterable[Magnitudes]) -> Magnitudes | None:
    """Return the summary with the largest magnitude, of which NaN is the largest; None if there is none."""
    return max(summaries, key=lambda x: math.inf if math.isnan(x.largest) else x.largest, default=None)


@torch.no_grad()
def magnitudes(tensor: Tensor) -> Magnitudes:
    """Summarise a tensor of :func:`is_float`; wait for the GPU."""
    sizes = tensor.detach().abs()
    largest = sizes.amax().item()  # NaN if any value is
    smallest = sizes.nan_to_num(nan=math.inf, posinf=math.inf).amin().item()
    return Magnitudes(tuple(tensor.shape), str(tensor.dtype).removeprefix('torch.'), largest, smallest)
