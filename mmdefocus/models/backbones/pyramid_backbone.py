"""The skeleton of pyramidal backbones: four stages of blocks on feature maps at strides 4, 8, 16 and 32.

Shapes: B batch, C channels of a stage, H and W rows and columns of its map.
"""

import logging
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmcv.cnn.bricks import DropPath
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .arch import arch_sizes
from .arguments import check_drop_path_rate, check_images, is_whole, refuse_unknown
from .name_hooks import find_misfit, take_own_tensors, translate_official_names
from .vision_backbone import VisionBackbone

NUM_STAGES = 4
SMALLEST_SIDE = 32
_OUTPUT_NORM = re.compile(r'norm\d\.')


class PyramidBlock(nn.Module):
    """Base class of the blocks of a stage, (B, C, H, W) → (B, C, H, W).

    Attributes:
        drop_path: Drops a branch of a sample in training; hooks change its ``drop_prob``.
    """

    drop_path: DropPath

    @abstractmethod
    def reset_parameters(self) -> None:
        """Set the initial values of all parameters."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map a feature map to one of the same shape."""


class PyramidBackbone(VisionBackbone):
    """Stem, four stages of blocks, downsampling in between, and a norm for each output.

    A subclass gives ``arch_zoo``, whose entries have at least the key ``embed_dims`` (four widths), and implements
    :meth:`depths_of`, :meth:`make_downsample`, :meth:`make_block` and :meth:`make_norm`. Its constructor stores its own
    arguments and passes all others to this one.

    Images may have any size from 32 × 32 pixels up.

    Args:
        arch: A name in ``arch_zoo``, or a dict with exactly the keys of its entries.
        in_channels: Number of channels of the image.
        out_indices: Stages, counted from 0, whose maps are returned, each through a norm of its own.
        drop_path_rate: Drop path rate of the last block. The rate grows linearly from 0 at the first block.
        norm_eval: If True, batch norms use their running statistics in training, too, and do not update them. Other
            norms have none.
        with_cp: If True, recompute the blocks in the backward pass instead of keeping their activations.
        frozen_stages: -1 freezes nothing, 0 the stem, k also the first k stages, with the downsampling before and the
            norm after each.
        init_cfg: MMEngine's initialisation, applied after the published initial values. A checkpoint in it
            (``type='Pretrained'``) may hold the backbone or a whole model, in the naming of this package or the
            official one. It must contain every tensor of the backbone; norms of ``out_indices`` that it lacks, as
            classifiers do those of the first three stages, start from their initial values.

    Attributes:
        downsample_layers: The stem, and the layer before each other stage.
        stages: Blocks of each stage.
        embed_dims: C of each stage.

    Raises:
        TypeError: If an argument is unknown, if ``arch`` is neither a name nor a dict, or if ``out_indices`` is no
            list.
        ValueError: If an argument is outside its range, or if ``arch`` has missing or unknown keys.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        in_channels: int = 3,
        *,
        out_indices: Sequence[int] = (3,),
        drop_path_rate: float = 0.0,
        norm_eval: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
        **unknown: object,
    ) -> None:
        refuse_unknown(type(self), unknown)
        super().__init__(init_cfg)
        sizes = arch_sizes(arch, self.arch_zoo)
        check_drop_path_rate(drop_path_rate)
        if not is_whole(in_channels) or in_channels < 1:
            raise ValueError(f'in_channels must be a positive integer, got {in_channels!r}')
        if not is_whole(frozen_stages) or not -1 <= frozen_stages <= NUM_STAGES:
            raise ValueError(f'frozen_stages must be a whole number from -1 to {NUM_STAGES}, got {frozen_stages!r}')
        if not isinstance(out_indices, Sequence):
            raise TypeError(f'out_indices must be a list of stages such as (3,), got {out_indices!r}')
        self.out_indices = tuple(out_indices)
        if not self.out_indices or not all(is_whole(i) and 0 <= i < NUM_STAGES for i in self.out_indices):
            raise ValueError(f'out_indices must be some of 0, 1, 2, 3, got {out_indices!r}')
        if list(self.out_indices) != sorted(set(self.out_indices)):
            raise ValueError(f'out_indices must ascend, got {out_indices!r}')
        self.in_channels = in_channels
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages

        self.embed_dims: tuple[int, ...] = sizes['embed_dims']
        depths = self.depths_of(sizes)
        self.downsample_layers = nn.ModuleList(
            self.make_downsample(sizes, stage, self.embed_dims[stage - 1] if stage else in_channels)
            for stage in range(NUM_STAGES)
        )
        self.stages = nn.ModuleList()
        count, built = sum(depths), 0
        for stage, depth in enumerate(depths):
            rates = [drop_path_rate * (built + i) / max(count - 1, 1) for i in range(depth)]
            self.stages.append(nn.ModuleList(self.make_block(sizes, stage, i, rate) for i, rate in enumerate(rates)))
            built += depth
        for stage in self.out_indices:
            self.add_module(f'norm{stage}', self.make_norm(self.embed_dims[stage]))
        self.freeze_stages()
        self._register_load_state_dict_pre_hook(_before_loading, with_module=True)

    @abstractmethod
    def depths_of(self, sizes: Mapping[str, Any]) -> Sequence[int]:
        """Return the number of blocks of each stage for an arch."""

    @abstractmethod
    def make_downsample(self, sizes: Mapping[str, Any], stage: int, in_channels: int) -> nn.Module:
        """Build the stem (stage 0), stride 4, or the layer before another stage, stride 2.

        The module has a method ``reset_parameters``.
        """

    @abstractmethod
    def make_block(self, sizes: Mapping[str, Any], stage: int, index: int, drop_path_rate: float) -> PyramidBlock:
        """Build a block of a stage, both counted from 0."""

    @abstractmethod
    def make_norm(self, channels: int) -> nn.Module:
        """Build the norm of an output; it has a method ``reset_parameters``."""

    @property
    def layers(self) -> list[PyramidBlock]:
        """All blocks in the order in which they run."""
        return [block for blocks in self._blocks for block in blocks]

    @property
    def _blocks(self) -> list[list[PyramidBlock]]:
        return [list(cast(nn.ModuleList, blocks)) for blocks in self.stages]  # type: ignore[arg-type]

    def reset_parameters(self) -> None:
        norms = (getattr(self, f'norm{stage}') for stage in self.out_indices)
        for part in (*self.downsample_layers, *self.layers, *norms):
            part.reset_parameters()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the stages ``out_indices``.

        Args:
            images: (B, in_channels, height, width), floating point, normalised.

        Returns:
            Normalised maps (B, C, H, W). A map has the stride 4, 8, 16 or 32; sides that are no multiple of it are
            rounded as the convolutions of the network round them.

        Raises:
            TypeError: If the images are not floating point.
            ValueError: If the rank or the number of channels is wrong, or if an image is smaller than 32 × 32 pixels.
        """
        check_images(images, self.in_channels, SMALLEST_SIDE, 'at least one cell of the last stage')
        x, outputs = images, []
        recompute = self.with_cp and torch.is_grad_enabled()
        for stage, (downsample, blocks) in enumerate(zip(self.downsample_layers, self._blocks, strict=True)):
            x = downsample(x)
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            if stage in self.out_indices:
                outputs.append(getattr(self, f'norm{stage}')(x))
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'PyramidBackbone':
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    # MMPreTrain's ImageClassifier calls it before it loads a state dict.
    _checkpoint_filter = staticmethod(translate_official_names)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter for layer-wise learning-rate decay.

        Args:
            param_name: Name of the parameter, with ``prefix``.
            prefix: Name of the backbone in the model, such as ``'backbone.'``.

        Returns:
            (depth, count): 0 for the stem, 1 … N for the N blocks, of which the first of a stage shares its depth with
            the downsampling before it, and count - 1 = N + 1 for the norms and everything outside the backbone.
        """
        depths = [len(blocks) for blocks in self._blocks]
        count = sum(depths) + 2
        name = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or name[0] not in ('downsample_layers', 'stages'):
            return count - 1, count
        stage = int(name[1])
        if name[0] == 'downsample_layers':
            return (sum(depths[:stage]) + 1 if stage else 0), count
        return sum(depths[:stage]) + int(name[2]) + 1, count

    def stage_parts(self) -> list[list[nn.Module | nn.Parameter]]:
        parts: list[list[nn.Module | nn.Parameter]] = [[self.downsample_layers[0]]]
        for stage, blocks in enumerate(self.stages):
            norm = [getattr(self, f'norm{stage}')] if stage in self.out_indices else []
            parts.append([*([self.downsample_layers[stage]] if stage else []), blocks, *norm])
        return parts

    def describe_size(self, weights: Mapping[str, Tensor]) -> str:
        names = [name.split('.') for name in weights]
        depths = [len({name[2] for name in names if name[:2] == ['stages', str(i)]}) for i in range(NUM_STAGES)]
        dims = [self._width(weights, stage) for stage in range(NUM_STAGES)]
        matching = [
            name
            for name, arch in self.arch_zoo.items()
            if list(arch['embed_dims']) == dims and list(self.depths_of(arch)) == depths
        ]
        known = ' or '.join(f'arch={name!r}' for name in matching) or 'another arch'
        return f'{known} (embed_dims={dims}, blocks={depths})'

    @staticmethod
    def _width(weights: Mapping[str, Tensor], stage: int) -> int | None:
        """Return C of a stage, the number of channels that its last downsampling convolution has."""
        prefix = f'downsample_layers.{stage}.'
        widths = [len(value) for name, value in weights.items() if name.startswith(prefix) and value.ndim == 4]
        return widths[-1] if widths else None

    def optional_names(self) -> frozenset[str]:
        early = (stage for stage in self.out_indices if stage < NUM_STAGES - 1)  # classifiers have the norm of the last
        return frozenset(
            f'norm{stage}.{name}' for stage in early for name in getattr(self, f'norm{stage}').state_dict()
        )


def _before_loading(
    backbone: PyramidBackbone,
    state_dict: dict[str, Tensor],
    prefix: str,
    _metadata: Mapping[str, Any],
    _strict: bool,
    _missing_keys: list[str],
    _unexpected_keys: list[str],
    errors: list[str],
) -> None:
    weights = take_own_tensors(state_dict, prefix)
    misfit = find_misfit(backbone, weights) or _other_depth(backbone, weights)
    if misfit is not None:
        errors.append(misfit)
        return
    own_names = backbone.state_dict()
    unused = [name for name in weights if _OUTPUT_NORM.match(name) and name not in own_names]
    for name in unused:
        del state_dict[prefix + name]
    new = sorted(backbone.optional_names() - weights.keys())
    if unused:
        print_log(
            f'the checkpoint has {", ".join(unused)}, which out_indices={backbone.out_indices} leaves out', 'current'
        )
    if weights and new:
        print_log(f'{", ".join(new)} start from initial values: the checkpoint lacks them', 'current', logging.WARNING)


def _other_depth(backbone: PyramidBackbone, weights: Mapping[str, Tensor]) -> str | None:
    own, theirs = backbone.describe_size(backbone.state_dict()), backbone.describe_size(weights)
    is_complete = all(any(name.startswith(f'stages.{stage}.') for name in weights) for stage in range(NUM_STAGES))
    if own == theirs or not is_complete:
        return None
    return (
        f'expected weights of {own}, got weights of {theirs}; give {type(backbone).__name__} the arch of the checkpoint'
    )
