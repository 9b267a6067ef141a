"""The backbone around the mixer."""

from mmengine.registry import MODELS

from mmdefocus.models import DefocusBackbone

from .mixer import MovingAverageMixer


@MODELS.register_module()
class ToyNet(DefocusBackbone):
    """A plain backbone of moving averages.

    Args:
        args, kwargs: Arguments of :class:`mmdefocus.models.DefocusBackbone`; ``arch`` is ``'nano'`` or a dict.
    """

    arch_zoo = {'nano': {'embed_dims': 96, 'num_layers': 2}}  # noqa: RUF012

    def make_mixer(self, sizes: dict[str, int]) -> MovingAverageMixer:
        return MovingAverageMixer(sizes['embed_dims'])
