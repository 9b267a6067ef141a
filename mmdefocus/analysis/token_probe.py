"""Show the tokens at one place of a network as a map of the image that hooks can read and replace.

Shapes: B batch, L tokens, C channels, R and W rows and columns of the image's token grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone
from mmdefocus.models.precision import at_least_float32

from .errors import AnalysisError
from .networks import TokenNetwork
from .token_layout import TokenLayout

SIDES = ('input', 'output')


class TokenProbe(nn.Module):
    """Passes the image tokens that enter or leave a layer through a module, as a map (B, C, R, W).

    Class tokens, registers and padding bypass the module, which returns its input until somebody replaces it.

    Args:
        network: The network.
        layer: Index of the layer.
        side: ``'input'`` for the tokens that enter the layer, ``'output'`` for those that leave it.

    Attributes:
        tokens: The module. Its input and output are at least float32.
        layer: Index of the layer, from 0.
        image_size: Height and width in pixels of the images of the next call; the caller sets it.

    Raises:
        AnalysisError: The layer or the side does not exist.
    """

    def __init__(self, network: TokenNetwork, layer: int, side: str) -> None:
        super().__init__()
        if side not in SIDES:
            raise AnalysisError(
                "side must be 'input' (the tokens that enter the layer) or 'output' (those that leave it), got "
                f'{side!r}'
            )
        (self.layer,) = network.select([layer])
        self.network, self.side = network, side
        self.tokens: nn.Module = nn.Identity()
        self.image_size = (0, 0)
        self._layout: TokenLayout | None = None

    @property
    def place(self) -> str:
        """Name of the place, for messages."""
        return f'the {self.side} of layer {self.layer} ({self.network.layer_names[self.layer]})'

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Pass the tokens through the module while the block runs."""
        module = self.network.layers[self.layer]
        handle = (
            module.register_forward_pre_hook(self._before, with_kwargs=True)
            if self.side == 'input'
            else module.register_forward_hook(self._after)
        )
        try:
            yield
        finally:
            handle.remove()

    def covered_pixels(self) -> tuple[int, int]:
        """Return height and width in pixels that the cells of the last map cover; they may reach beyond the image."""
        assert self._layout is not None
        backbone = self.network.backbone
        if not isinstance(backbone, DefocusBackbone):
            return self.image_size
        rows, columns = self._layout.image_grid
        return rows * backbone.patch_size, columns * backbone.patch_size

    def _before(self, _: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (self._replace(args[0]), *args[1:]), kwargs
        name, values = next(iter(kwargs.items()))
        return args, {**kwargs, name: self._replace(values)}

    def _after(self, _: nn.Module, __: tuple, output: Any) -> Any:
        if isinstance(output, tuple | list):
            return type(output)([self._replace(output[0]), *output[1:]])
        return self._replace(output)

    def _replace(self, values: Any) -> Tensor:
        if not isinstance(values, Tensor):
            raise AnalysisError(f'expected tokens or maps at {self.place}, got {type(values).__name__}; choose another')
        self._layout = self.network.layout(values, self.image_size)
        item = values[:1]
        numbers = torch.arange(item.numel(), device=item.device).view_as(item)
        places = self._layout.to_grid(self.network.tokens(numbers)[0].mT)  # (C, R, W), in a flattened item
        flat = values.flatten(1)
        image = self.tokens(at_least_float32(flat[:, places]))  # (B, C, R, W)
        return flat.index_copy(1, places.flatten(), image.flatten(1).to(flat.dtype)).view_as(values)
