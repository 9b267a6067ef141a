"""A feature pyramid from the last feature map of a plain backbone.

Shapes: B batch, C in_channels, O out_channels, H and W rows and columns of the input map (stride 16).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

MAX_OUTS = 5


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Simple feature pyramid of plain-backbone detectors (ViTDet, arXiv 2203.16527).

    Levels, from an input map of stride 16: stride 4 (two 2 × 2 deconvolutions), stride 8 (one deconvolution), stride 16
    (the input map), stride 32 (2 × 2 max pooling), each followed by a 1 × 1 and a 3 × 3 convolution with norm and
    without bias. A fifth level, stride 64, subsamples the output of the fourth. The strides assume patches of 16
    pixels; they are proportional to the patch size.

    Args:
        in_channels: C, a multiple of 4.
        out_channels: O.
        num_outs: Number of levels, from ``start_level`` on; at most 5 - ``start_level``.
        norm_cfg: Norm of all levels, for mmcv's ``build_norm_layer``. Default: ``DefocusLN2d`` with epsilon 1e-5.
        start_level: First level to build, 0 (stride 4) to 3. The finest levels have most of the pixels; without them
            a detector of large objects is cheaper.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``num_outs``, ``start_level`` or ``in_channels`` is outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_outs: int = 4,
        norm_cfg: dict | None = None,
        start_level: int = 0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not 0 <= start_level < MAX_OUTS - 1:
            raise ValueError(f'start_level must be from 0 to {MAX_OUTS - 2}, got {start_level}')
        if not 1 <= num_outs <= MAX_OUTS - start_level:
            raise ValueError(
                f'num_outs must be from 1 to {MAX_OUTS - start_level} with start_level={start_level} '
                f'(the last level is stride 64), got {num_outs}'
            )
        if in_channels < 4 or in_channels % 4:
            raise ValueError(f'in_channels must be a positive multiple of 4, got {in_channels}')
        norm_cfg = norm_cfg or {'type': 'DefocusLN2d', 'eps': 1e-5}
        self.in_channels = in_channels
        self.levels = range(start_level, start_level + num_outs)
        half, quarter = in_channels // 2, in_channels // 4

        if 0 in self.levels:
            self.fpn1 = nn.Sequential(
                nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                build_norm_layer(norm_cfg, half)[1],
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            )
        if 1 in self.levels:
            self.fpn2 = nn.Sequential(nn.ConvTranspose2d(in_channels, half, 2, stride=2))
        widths = [(quarter, half, in_channels, in_channels)[level] for level in self.levels if level < 4]
        self.lateral_convs = nn.ModuleList(
            ConvModule(width, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None) for width in widths
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None) for _ in widths
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            inputs: One feature map (B, C, H, W) of stride 16 in a tuple or list.

        Returns:
            ``num_outs`` maps (B, O, ·, ·), finest first.

        Raises:
            TypeError: If ``inputs`` is not a tuple or list.
            ValueError: If there is not exactly one map, if its shape is wrong, or if it is too small for the levels.
        """
        level = self._check_inputs(inputs)
        maps = []
        if 0 in self.levels:
            maps.append(self.fpn1(level))
        if 1 in self.levels:
            maps.append(self.fpn2(level))
        if 2 in self.levels:
            maps.append(level)
        if 3 in self.levels:
            maps.append(F.max_pool2d(level, 2))
        outs = [fpn(lateral(x)) for x, lateral, fpn in zip(maps, self.lateral_convs, self.fpn_convs, strict=True)]
        if 4 in self.levels:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)

    def _check_inputs(self, inputs: Sequence[Tensor]) -> Tensor:
        if not isinstance(inputs, (tuple, list)):
            raise TypeError(f'expected the feature map in a tuple or list, got {type(inputs).__name__}')
        if len(inputs) != 1:
            raise ValueError(f"expected exactly one feature map (out_type='featmap'), got {len(inputs)}")
        level = inputs[0]
        if level.ndim != 4 or level.shape[1] != self.in_channels:
            raise ValueError(
                f'expected a map of shape (batch, {self.in_channels}, rows, columns), got {tuple(level.shape)}'
            )
        if 3 in self.levels and min(level.shape[-2:]) < 2:
            raise ValueError(
                f'expected a map of at least 2 x 2 for the level of stride 32, '
                f'got {level.shape[-2]} x {level.shape[-1]}; use larger images'
            )
        return level
