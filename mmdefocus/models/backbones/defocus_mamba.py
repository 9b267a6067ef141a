"""De-focus Mamba backbones."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from mmengine.registry import MODELS

from ..mixers import MambaMixer
from .arch import arch_sizes
from .defocus_backbone import DefocusBackbone, Scale

ARCH_KEYS = ('embed_dims', 'num_layers', 'inner_dims', 'state_dims', 'conv_kernel', 'dt_rank', 'group_size')


def _arch(*sizes: int) -> dict[str, int]:
    return dict(zip(ARCH_KEYS, sizes, strict=True))


@MODELS.register_module()
class DefocusMamba(DefocusBackbone):
    """De-focus Mamba (arXiv 2406.04342): a causal 1D backbone with a learnable band-pass and the class token last.

    Args:
        arch: ``'nano'`` (for demonstrations), ``'small'``, ``'base'``, ``'large'``, or a dict with exactly the keys
            ``embed_dims, num_layers, inner_dims, state_dims, conv_kernel, dt_rank, group_size``.
        rotary: Whether the mixers have a learnable rotary position embedding (the centre of the band-pass).
        img_size, patch_size, in_channels, token_order, pretrain_size, rope_scale, delta_scale, drop_path_rate,
            final_norm_eps, out_type, blocks_in_fp32, patch_embed_init,
            scale_rule, with_cp, frozen_stages, init_cfg: See :class:`DefocusBackbone`.

    Raises:
        TypeError: ``arch`` is neither a name nor a dict.
        ValueError: Unknown ``arch``, missing or unknown keys in it, or an argument outside its range.
    """

    arch_zoo: ClassVar[dict[str, dict[str, int]]] = {
        'nano': _arch(96, 4, 192, 16, 4, 6, 64),
        'small': _arch(384, 24, 768, 16, 4, 48, 64),
        'base': _arch(768, 24, 1536, 16, 4, 48, 64),
        'large': _arch(1024, 48, 2048, 16, 4, 48, 64),
    }

    def __init__(
        self,
        arch: str | Mapping[str, int],
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        token_order: str = 'raster',
        pretrain_size: int | None = None,
        rotary: bool = True,
        rope_scale: Scale | None = None,
        delta_scale: Scale | None = None,
        drop_path_rate: float = 0.0,
        final_norm_eps: float = 1e-6,
        out_type: str = 'cls_token',
        blocks_in_fp32: bool | None = None,
        patch_embed_init: str | None = None,
        scale_rule: str | None = None,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        sizes = arch_sizes(arch, self.arch_zoo)
        num_layers = sizes.pop('num_layers')
        super().__init__(
            make_mixer=partial(MambaMixer, **sizes, rotary=rotary),
            embed_dims=sizes['embed_dims'],
            num_layers=num_layers,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            token_order=token_order,
            pretrain_size=pretrain_size,
            rope_scale=rope_scale,
            delta_scale=delta_scale,
            drop_path_rate=drop_path_rate,
            final_norm_eps=final_norm_eps,
            out_type=out_type,
            blocks_in_fp32=blocks_in_fp32,
            patch_embed_init=patch_embed_init,
            scale_rule=scale_rule,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            init_cfg=init_cfg,
        )
