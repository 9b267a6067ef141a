"""De-focus Mamba backbones."""

from typing import Any

from mmengine.registry import MODELS

from ..mixers import MambaMixer
from .arch import arch_table
from .defocus_backbone import DefocusBackbone


@MODELS.register_module()
class DefocusMamba(DefocusBackbone):
    """De-focus Mamba (arXiv 2406.04342): a causal plain backbone with a learnable band-pass and the class token last.

    Args:
        args, kwargs: Arguments of :class:`DefocusBackbone`. ``arch`` is ``'nano'`` (for demonstrations), ``'small'``,
            ``'base'``, ``'large'``, or a dict with exactly the keys ``embed_dims, num_layers, inner_dims, state_dims,
            conv_kernel, dt_rank, group_size``.
        rotary: If True, the mixers have a learnable rotary position embedding (the centre of the band-pass).
    """

    arch_zoo = arch_table(
        ('embed_dims', 'num_layers', 'inner_dims', 'state_dims', 'conv_kernel', 'dt_rank', 'group_size'),
        nano=(96, 4, 192, 16, 4, 6, 64),
        small=(384, 24, 768, 16, 4, 48, 64),
        base=(768, 24, 1536, 16, 4, 48, 64),
        large=(1024, 48, 2048, 16, 4, 48, 64),
    )

    def __init__(self, *args: Any, rotary: bool = True, **kwargs: Any) -> None:
        self.rotary = rotary
        super().__init__(*args, **kwargs)

    def make_mixer(self, sizes: dict[str, int]) -> MambaMixer:
        return MambaMixer(**sizes, rotary=self.rotary)
