"""De-focus ViT backbones."""

from typing import Any

from mmengine.registry import MODELS

from ..feed_forward import FeedForward
from ..mixers import AttentionMixer
from .arch import arch_table
from .defocus_backbone import DefocusBackbone


@MODELS.register_module()
class DefocusViT(DefocusBackbone):
    """De-focus ViT (arXiv 2406.04342): attention with a learnable band-pass, and the class token last.

    The paper reports results of this network but its code is not published; ``docs/bandpass.md`` lists our design
    choices. The sizes are those of DeiT.

    Args:
        args, kwargs: Arguments of :class:`DefocusBackbone`. ``arch`` is ``'nano'`` (for demonstrations), ``'small'``,
            ``'base'``, or a dict with exactly the keys ``embed_dims, num_layers, num_heads, ffn_dims``.
        causal: If True, a token attends only to itself and to earlier tokens.
        band_pass: If True, attention has a learnable band-pass. Without it, attention ignores positions, and the
            network should have ``absolute_positions=True``.
    """

    arch_zoo = arch_table(
        ('embed_dims', 'num_layers', 'num_heads', 'ffn_dims'),
        nano=(96, 4, 3, 384),
        small=(384, 12, 6, 1536),
        base=(768, 12, 12, 3072),
    )

    def __init__(self, *args: Any, causal: bool = True, band_pass: bool = True, **kwargs: Any) -> None:
        self.causal, self.band_pass = causal, band_pass
        super().__init__(*args, **kwargs)

    def make_mixer(self, sizes: dict[str, int]) -> AttentionMixer:
        return AttentionMixer(sizes['embed_dims'], sizes['num_heads'], self.causal, self.band_pass)

    def make_ffn(self, sizes: dict[str, int]) -> FeedForward:
        return FeedForward(sizes['embed_dims'], sizes['ffn_dims'])
