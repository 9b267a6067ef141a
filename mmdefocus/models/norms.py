"""Normalisations of the De-focus networks; statistics are at least float32.

Shapes: B batch, L tokens, C channels, H and W rows and columns of a feature map.
"""

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmdefocus.ops import rms_norm

from .precision import at_least_float32, operand_dtype


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm over the last dimension, (..., C) → (..., C).

    Statistics and scaling are at least float32. The result has the dtype in which the projection after it computes:
    that of autocast or, without autocast, that of the weight, so that projections with half parameters accept a
    normalised float32 residual.

    Args:
        channels: C.
        eps: Added to the mean square.
    """

    eps: float

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, operand_dtype(self.weight))


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension, (..., C) → (..., C); dtypes as in :class:`RMSNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = at_least_float32(self.weight), at_least_float32(self.bias)
        return F.layer_norm(at_least_float32(x), self.normalized_shape, weight, bias, self.eps).to(self.weight.dtype)


@MODELS.register_module()
class DefocusLN2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel of a feature map, (B, C, H, W) → (B, C, H, W).

    Statistics are at least float32. The result has the dtype of the input. In mmcv's ``build_norm_layer``, use
    ``dict(type='DefocusLN2d', eps=1e-5)``.

    Args:
        num_channels: C.
        eps: Epsilon added to the variance.
    """

    # mmcv's ConvModule names the layer by this, and the published detection checkpoints contain the name.
    _abbr_ = 'norm_layer'

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = at_least_float32(self.weight), at_least_float32(self.bias)
        channels_last = at_least_float32(x).permute(0, 2, 3, 1)
        normed = F.layer_norm(channels_last, self.normalized_shape, weight, bias, self.eps)
        return normed.permute(0, 3, 1, 2).to(x.dtype)
