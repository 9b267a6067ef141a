"""De-focus ViT backbones."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from mmengine.registry import MODELS

from ..feed_forward import FeedForward
from ..mixers import AttentionMixer
from .arch import arch_sizes
from .defocus_backbone import DefocusBackbone, Scale


def _arch(embed_dims: int, num_layers: int, num_heads: int, ffn_dims: int) -> dict[str, int]:
    return dict(embed_dims=embed_dims, num_layers=num_layers, num_heads=num_heads, ffn_dims=ffn_dims)


@MODELS.register_module()
class DefocusViT(DefocusBackbone):
    """De-focus ViT (arXiv 2406.04342): attention with a learnable band-pass, and the class token last.

    The paper reports this network and does not publish it: ``docs/bandpass.md`` says what is our reading of it. Sizes
    are those of DeiT.

    Args:
        arch: ``'nano'`` (for demonstrations), ``'small'``, ``'base'``, or a dict with exactly the keys
            ``embed_dims, num_layers, num_heads, ffn_dims``.
        causal: Whether a token sees only itself and those before it.
        band_pass: Whether there is a learnable band-pass. The plain network, which knows no positions without it,
            should have ``absolute_positions``.
        absolute_positions, img_size, patch_size, in_channels, token_order, pretrain_size, rope_scale, delta_scale,
            drop_path_rate, final_norm_eps, out_type, blocks_in_fp32, patch_embed_init,
            scale_rule, with_cp, frozen_stages, init_cfg: See :class:`DefocusBackbone`.

    Raises:
        TypeError: ``arch`` is neither a name nor a dict.
        ValueError: Unknown ``arch``, missing or unknown keys in it, or an argument outside its range.
    """

    arch_zoo: ClassVar[dict[str, dict[str, int]]] = {
        'nano': _arch(96, 4, 3, 384),
        'small': _arch(384, 12, 6, 1536),
        'base': _arch(768, 12, 12, 3072),
    }

    def __init__(
        self,
        arch: str | Mapping[str, int],
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        token_order: str = 'raster',
        pretrain_size: int | None = None,
        causal: bool = True,
        band_pass: bool = True,
        absolute_positions: bool = False,
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
        embed_dims = sizes['embed_dims']
        super().__init__(
            make_mixer=partial(AttentionMixer, embed_dims, sizes['num_heads'], causal, band_pass),
            embed_dims=embed_dims,
            num_layers=sizes['num_layers'],
            make_ffn=partial(FeedForward, embed_dims, sizes['ffn_dims']),
            absolute_positions=absolute_positions,
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
