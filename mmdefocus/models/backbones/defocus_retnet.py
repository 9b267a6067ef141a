"""De-focus RetNet backbones."""

from typing import Any

from mmengine.registry import MODELS

from ..feed_forward import GatedFeedForward
from ..mixers import RetentionMixer
from .arch import arch_table
from .defocus_backbone import DefocusBackbone


@MODELS.register_module()
class DefocusRetNet(DefocusBackbone):
    """De-focus RetNet (arXiv 2406.04342): causal retention with a learnable band-pass, and the class token last.

    The paper reports results of this network but its code is not published; ``docs/bandpass.md`` lists our design
    choices. Values are twice as wide as keys; a gated feed-forward network of 5 / 3 of the width gives the published
    number of parameters.

    Args:
        args, kwargs: Arguments of :class:`DefocusBackbone`. ``arch`` is ``'nano'`` (for demonstrations), ``'base'``, or
            a dict with exactly the keys ``embed_dims, num_layers, num_heads, value_dims, ffn_dims``.
        band_pass: If True, retention has a learnable band-pass. Without it, retention ignores positions, and the
            network should have ``absolute_positions=True``.
    """

    arch_zoo = arch_table(
        ('embed_dims', 'num_layers', 'num_heads', 'value_dims', 'ffn_dims'),
        nano=(96, 4, 3, 192, 160),
        base=(768, 12, 12, 1536, 1280),
    )

    def __init__(self, *args: Any, band_pass: bool = True, **kwargs: Any) -> None:
        self.band_pass = band_pass
        super().__init__(*args, **kwargs)

    def make_mixer(self, sizes: dict[str, int]) -> RetentionMixer:
        return RetentionMixer(sizes['embed_dims'], sizes['num_heads'], sizes['value_dims'], self.band_pass)

    def make_ffn(self, sizes: dict[str, int]) -> GatedFeedForward:
        return GatedFeedForward(sizes['embed_dims'], sizes['ffn_dims'])
