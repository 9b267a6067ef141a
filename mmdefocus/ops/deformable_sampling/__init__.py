"""Multi-scale deformable sampling, the core of deformable attention.

Shapes: B batch, V positions of all maps, H heads, C channels of a head, Q queries, L maps, P samples per map.
"""

from contextlib import nullcontext

import torch
from torch import Tensor

from mmdefocus.ops.backends import choose_backend
from mmdefocus.ops.validation import compute_dtype

from .reference import deformable_sampling_reference
from .registration import check_shapes


def _compiled(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return torch.ops.mmdefocus.deformable_sampling(value, shapes, locations, weights)


_IMPLEMENTATIONS = {'cpp': _compiled, 'reference': deformable_sampling_reference}


def deformable_sampling(
    value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, backend: str | None = None
) -> Tensor:
    """Add up weighted bilinear samples of feature maps for every query (deformable DETR, arXiv 2010.04159).

    Positions outside a map are zero. Half types compute in float32, whatever autocast says.

    Args:
        value: Features, (B, V, H, C), map by map and row by row; float16, bfloat16, float32 or float64.
        shapes: Height and width of every map, (L, 2), int64.
        locations: x and y of every sample, (B, Q, H, L, P, 2); 0 and 1 are the edges of a map.
        weights: (B, Q, H, L, P).
        backend: A name in :func:`mmdefocus.ops.available_backends`; None chooses by device and type.

    Returns:
        (B, Q, H * C), of the type of ``value``.

    Raises:
        TypeError: Complex, integer or mixed float64 and other types; ``shapes`` is not int64.
        ValueError: Mismatched shapes, tensors on different devices, an unknown backend.
        RuntimeError: The named backend cannot run here.
    """
    op = 'deformable_sampling'
    compute = compute_dtype(op, {'value': value, 'locations': locations, 'weights': weights})
    check_shapes(op, value, shapes, locations, weights)
    implementation = _IMPLEMENTATIONS[choose_backend(backend, value.device, value.dtype, _IMPLEMENTATIONS)]
    # Autocast would move the products of the reference into half types; the meta device has no autocast to switch off.
    with nullcontext() if value.is_meta else torch.autocast(value.device.type, enabled=False):
        result = implementation(value.to(compute), shapes, locations.to(compute), weights.to(compute))
    return result.flatten(2).to(value.dtype)
