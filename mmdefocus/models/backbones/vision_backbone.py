"""The part of MMPreTrain's backbone contract that does not depend on the kind of network.

Sizes by name, published initial values, pretrained weights and frozen stages are common to plain and pyramidal
networks. Token order, class token and scales are not: see :class:`.defocus_backbone.DefocusBackbone`.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from .arch import ArchZoo
from .pretrained import InitCfg, load_pretrained, split_pretrained


class VisionBackbone(BaseModule):
    """Base class of backbones that map images (B, in_channels, height, width) to a tuple of tensors.

    A subclass sets ``frozen_stages``, builds its modules and calls :meth:`freeze_stages` at the end of its constructor.

    Args:
        init_cfg: MMEngine's initialisation; see :meth:`init_weights`.

    Attributes:
        arch_zoo: Sizes by name, for the argument ``arch``.
        frozen_stages: Number of the last frozen stage; -1 freezes none.
    """

    arch_zoo: ClassVar[ArchZoo]
    frozen_stages: int = -1

    def __init__(self, init_cfg: InitCfg | Sequence[InitCfg] | None = None) -> None:
        by_rule, self.pretrained = split_pretrained(init_cfg)
        super().__init__(init_cfg=by_rule)

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the published initial values of all parameters."""

    @abstractmethod
    def stage_parts(self) -> list[list[nn.Module | nn.Parameter]]:
        """Return the modules and parameters of every stage; stage 0 is the stem."""

    @abstractmethod
    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter and the number of depths, for layer-wise learning-rate decay."""

    def describe_size(self, weights: Mapping[str, Tensor]) -> str:
        """Describe the size of the network that tensors with the names of this backbone belong to, with its arch.

        The base class knows none and returns the number of tensors.
        """
        return f'a network of {len(weights)} tensors'

    def optional_names(self) -> frozenset[str]:
        """Return the names of tensors that the weights of the same network with other outputs lack.

        They then keep their initial values. The base class has none.
        """
        return frozenset()

    def init_weights(self) -> None:
        """Set the published initial values, then apply ``init_cfg``, then load the checkpoints that it names.

        Raises:
            CheckpointError: If a checkpoint cannot be read or does not fit this backbone.
        """
        if self.is_init:
            return
        self.reset_parameters()
        super().init_weights()
        for part in self.pretrained:
            load_pretrained(self, part)
        if not self.pretrained:
            print_log(f'{type(self).__name__} starts from random weights: its init_cfg names no checkpoint', 'current')

    def freeze_stages(self) -> None:
        """Exclude the stages up to ``frozen_stages`` from training."""
        for part in self._frozen_parts():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def train(self, mode: bool = True) -> 'VisionBackbone':
        """Set training mode, but keep frozen stages in evaluation mode, without drop path."""
        super().train(mode)
        for part in self._frozen_parts():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def _frozen_parts(self) -> Iterator[nn.Module | nn.Parameter]:
        for stage in self.stage_parts()[: self.frozen_stages + 1]:
            yield from stage
