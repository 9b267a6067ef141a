"""mmcv's deformable attention on CPUs, with the operator of this package; importing this module installs it.

mmcv has kernels for GPUs, and a function in PyTorch for CPUs, which took a third of a training step of a small DINO.
"""

from contextlib import suppress

from torch import Tensor

from mmdefocus.ops import deformable_sampling


def sample(value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Replace mmcv's ``multi_scale_deformable_attn_pytorch``.

    Args:
        value: (batch, positions, heads, channels).
        spatial_shapes: Height and width of every map, (maps, 2).
        sampling_locations: (batch, queries, heads, maps, points, 2).
        attention_weights: (batch, queries, heads, maps, points).

    Returns:
        (batch, queries, heads * channels).
    """
    return deformable_sampling(value, spatial_shapes, sampling_locations, attention_weights)


with suppress(ImportError):  # mmcv-lite has no deformable attention
    from mmcv.ops import multi_scale_deform_attn

    multi_scale_deform_attn.multi_scale_deformable_attn_pytorch = sample
