"""One view of the networks that can be analysed: their layers, and the tokens between them.

Shapes: B batch, L tokens, C channels, R and W rows and columns of the token grid.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone
from mmdefocus.models.token_order import image_to_sequence

from .errors import AnalysisError
from .token_layout import OUTSIDE, TokenLayout, grid_of_image

# Attributes of timm's and MMPreTrain's backbones that hold their blocks, or stages of blocks.
_CONTAINERS = ('layers', 'blocks', 'stages', 'network', 'features')


@dataclass(frozen=True)
class LayerRecord:
    """What a layer received and returned, as the network computes it: part of the graph if gradients are enabled."""

    inputs: Tensor
    outputs: Tensor


class TokenNetwork:
    """A network as a sequence of layers that map tokens to tokens.

    Args:
        model: A backbone or classifier of mmdefocus, MMPreTrain or timm, or a detector with such a backbone.
        blocks: Dotted path of the container of the layers, such as ``backbone.network``, for a backbone whose layers
            are not found otherwise.

    Attributes:
        model: The model, as given.
        backbone: Its backbone.
        layers: Modules of the layers, first to last.
        layer_names: Their names in the model.

    Raises:
        AnalysisError: The model has no layers that can be found.
    """

    def __init__(self, model: nn.Module, blocks: str | None = None) -> None:
        self.model = model
        backbone = getattr(model, 'backbone', model)
        self.backbone: nn.Module = getattr(backbone, 'timm_model', backbone)
        named = {module: name for name, module in model.named_modules()}
        self.layers = _container(model, blocks) if blocks else _find_layers(self.backbone)
        if not self.layers:
            raise AnalysisError(
                f'{type(self.backbone).__name__} has no layers that are known to give tokens (looked for '
                f'{", ".join(_CONTAINERS)} and layer1); name their container in Python: TokenNetwork(model, blocks)'
            )
        self.layer_names = [named[layer] for layer in self.layers]
        self._image_size: tuple[int, int] | None = None  # of the last images

    @property
    def is_defocus(self) -> bool:
        """Whether this is a plain backbone of mmdefocus, with the class token last."""
        return isinstance(self.backbone, DefocusBackbone)

    def select(self, layers: Sequence[int] | None) -> list[int]:
        """Return the indices of layers, from 0; None selects all, and negative numbers count from the last.

        Raises:
            AnalysisError: A layer does not exist.
        """
        count = len(self.layers)
        for layer in layers or ():
            if not -count <= layer < count:
                raise AnalysisError(
                    f'{type(self.backbone).__name__} has the layers 0 to {count - 1} (or -{count} to -1), got {layer}'
                )
        return list(range(count)) if layers is None else [layer % count for layer in layers]

    def run(self, images: Tensor) -> Tensor | None:
        """Run the network in its current mode.

        Args:
            images: Normalised images (B, 3, height, width).

        Returns:
            The logits (B, classes) of a classifier, of the ``predict_classes`` of its head if it has them; None for a
            backbone and for a detector, whose backbone alone runs.
        """
        self._image_size = (images.shape[-2], images.shape[-1])
        backbone = getattr(self.model, 'backbone', None)
        if backbone is None:  # a backbone of MMPreTrain returns a tuple, a network of timm a tensor
            outputs = self.model(images)
            classifies = isinstance(outputs, Tensor) and outputs.dim() == 2 and getattr(self.model, 'num_classes', True)
            return outputs if classifies else None
        head = getattr(self.model, 'head', None)
        if head is not None:
            logits = self.model(images, mode='tensor')
            selected = getattr(head, 'predict_classes', None)
            return logits if selected is None else logits[:, selected]
        backbone(images)
        return None

    @contextmanager
    def record(self, layers: Sequence[int]) -> Iterator[dict[int, LayerRecord]]:
        """Record what the layers receive and return while the block runs the network once.

        Args:
            layers: Indices of layers.

        Yields:
            A dictionary that fills with the records of the layers.
        """
        records: dict[int, LayerRecord] = {}
        handles = []
        for index in layers:

            def store(module: nn.Module, args: tuple, kwargs: dict, output: Any, index: int = index) -> None:
                inputs = args[0] if args else next(iter(kwargs.values()))
                output = output[0] if isinstance(output, tuple | list) else output
                if not (isinstance(inputs, Tensor) and isinstance(output, Tensor)):
                    raise AnalysisError(
                        f'layer {index} ({self.layer_names[index]}) maps {type(inputs).__name__} to '
                        f'{type(output).__name__}; expected a layer that maps a tensor of tokens to another'
                    )
                records[index] = LayerRecord(inputs, output)

            handles.append(self.layers[index].register_forward_hook(store, with_kwargs=True))
        try:
            yield records
        finally:
            for handle in handles:
                handle.remove()

    def tokens(self, values: Tensor) -> Tensor:
        """Arrange what a layer receives or returns as tokens: (B, L, C), (B, C, R, W) or (B, R, W, C) to (B, L, C).

        Raises:
            AnalysisError: The tensor has another rank.
        """
        if values.dim() == 3:
            return values
        if values.dim() == 4:
            return values.flatten(1, 2) if self._channels_last(values) else values.flatten(2).mT
        raise AnalysisError(
            f'expected tokens (B, L, C) or maps (B, C, H, W) from the layers of {type(self.backbone).__name__}, got '
            f'the shape {tuple(values.shape)}: it has no tokens'
        )

    def layout(self, values: Tensor, image_size: tuple[int, int]) -> TokenLayout:
        """Return where the tokens lie that a layer receives or returns.

        Args:
            values: Tensor of the layer.
            image_size: Height and width of the images in pixels.

        Raises:
            AnalysisError: The tokens have no place in the image.
        """
        if isinstance(self.backbone, DefocusBackbone):
            return _defocus_layout(self.backbone, image_size)
        self._image_size = image_size
        if values.dim() == 4:
            rows, columns = values.shape[1:3] if self._channels_last(values) else values.shape[2:]
            grid = (rows, columns)
            return TokenLayout(grid, torch.arange(grid[0] * grid[1]), grid, None, causal=False)
        if hasattr(self.backbone, 'unroll'):  # Hiera's
            raise AnalysisError(
                f'{type(self.backbone).__name__} reorders its tokens, expected those of the image row by row; leave '
                'the network out'
            )
        length = self.tokens(values).shape[1]
        found = grid_of_image(length, *image_size)
        if found is None:
            raise AnalysisError(
                f'{length} tokens of {type(self.backbone).__name__} are no grid for images of {image_size[0]} x '
                f'{image_size[1]} pixels with at most 16 further tokens'
            )
        # timm and MMPreTrain put the class token first, then registers; some networks have registers alone.
        extra = length - found[0] * found[1]
        has_class_token = extra > 0 and getattr(self.backbone, 'cls_token', True) is not None
        cells = torch.cat((torch.full((extra,), OUTSIDE), torch.arange(found[0] * found[1])))
        return TokenLayout(found, cells, found, 0 if has_class_token else None, causal=False)

    def _channels_last(self, values: Tensor) -> bool:
        format_ = getattr(self.backbone, 'output_fmt', None)
        if format_ is not None:
            return str(getattr(format_, 'value', format_)).upper() == 'NHWC'
        if self._image_size is None:
            return values.shape[1] == values.shape[2] != values.shape[3]
        height, width = self._image_size
        first, second = (
            abs(math.log(rows * width / (columns * height))) for rows, columns in (values.shape[2:], values.shape[1:3])
        )
        return second < first  # the maps have the image's aspect ratio


def open_network(model: nn.Module | TokenNetwork) -> TokenNetwork:
    """Return the view of a model; a view is returned as it is."""
    return model if isinstance(model, TokenNetwork) else TokenNetwork(model)


def _find_layers(backbone: nn.Module) -> list[nn.Module]:
    for name in _CONTAINERS:
        container = getattr(backbone, name, None)
        if isinstance(container, nn.ModuleList | nn.Sequential) and len(container):
            return _flatten(container)
    stages: list[nn.Module] = []
    while isinstance(getattr(backbone, f'layer{len(stages) + 1}', None), nn.Module):
        stages.append(getattr(backbone, f'layer{len(stages) + 1}'))
    return [block for stage in stages for block in _flatten(stage)]


def _container(model: nn.Module, path: str) -> list[nn.Module]:
    try:
        return _flatten(model.get_submodule(path))
    except AttributeError as error:
        raise AnalysisError(f"{type(model).__name__} has no module '{path}'; name one of named_modules()") from error


def _flatten(container: nn.Module) -> list[nn.Module]:
    """Return the blocks of a container of blocks, or of stages that hold their blocks in ``blocks``."""
    layers: list[nn.Module] = []
    for child in container.children():
        inner = getattr(child, 'blocks', child)
        layers += list(inner) if isinstance(inner, nn.ModuleList | nn.Sequential) else [child]
    return layers


def _defocus_layout(backbone: DefocusBackbone, image_size: tuple[int, int]) -> TokenLayout:
    patch, unit = backbone.patch_size, backbone.patch_size * (backbone.window or 1)
    rows, columns = (-(-side // unit) * unit // patch for side in image_size)
    order = image_to_sequence(torch.arange(rows * columns).view(1, rows, columns, 1), backbone.window).flatten()
    image_grid = (-(-image_size[0] // patch), -(-image_size[1] // patch))
    causal = getattr(backbone, 'causal', True)
    return TokenLayout((rows, columns), torch.cat((order, order.new_tensor([OUTSIDE]))), image_grid, len(order), causal)
