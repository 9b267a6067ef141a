"""What the mixers of a network receive and compute while it runs.

Shapes: B batch, L tokens, C embed_dims, E channels of the values.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.models.mixers import TokenMixer

from ..errors import NoAttention
from ..eval_mode import eval_mode
from ..networks import TokenNetwork


@dataclass(frozen=True)
class MixerCall:
    """One forward pass of a mixer.

    Attributes:
        layer: Number of the layer.
        name: Name of the mixer in the model.
        mixer: The mixer.
        x: Its tokens (B, L, C).
        positions: Their positions (L,).
        delta_scale: Divides the decay.
        output: What the mixer gave to its output projection, (B, L, E).
        autocast: Type to which autocast converted the operands of the projections; None without autocast.
    """

    layer: int
    name: str
    mixer: TokenMixer
    x: Tensor
    positions: Tensor
    delta_scale: float
    output: Tensor
    autocast: torch.dtype | None

    def autocast_of_call(self) -> AbstractContextManager:
        """Return a context in which projections compute as they did in the call."""
        device = self.x.device.type
        return torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None)


@torch.no_grad()
def record_mixer_calls(network: TokenNetwork, images: Tensor, layers: Sequence[int]) -> dict[int, MixerCall]:
    """Run a network of this package once in evaluation mode and record the calls of its mixers.

    Args:
        network: A network of this package.
        images: Normalised images (B, 3, height, width).
        layers: Numbers of the layers, from 0.

    Raises:
        NoAttention: A layer has no mixer with an output projection.
    """
    arguments: dict[int, tuple[Any, ...]] = {}
    outputs: dict[int, Tensor] = {}
    autocast: dict[int, torch.dtype | None] = {}
    mixers = {layer: _mixer(network, layer) for layer in layers}
    with ExitStack() as stack:
        for layer, mixer in mixers.items():

            def enter(_: nn.Module, args: tuple[Any, ...], layer: int = layer) -> None:
                arguments[layer] = args
                device = args[0].device.type
                autocast[layer] = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

            def project(_: nn.Module, args: tuple[Any, ...], layer: int = layer) -> None:
                outputs[layer] = args[0]

            stack.callback(mixer.register_forward_pre_hook(enter).remove)
            stack.callback(mixer.get_submodule('out_proj').register_forward_pre_hook(project).remove)
        stack.enter_context(eval_mode(network.model))
        network.run(images)
    calls = {}
    for layer, mixer in mixers.items():
        x, positions, delta_scale = arguments[layer]
        name = f'{network.layer_names[layer]}.mixer'
        calls[layer] = MixerCall(layer, name, mixer, x, positions, delta_scale, outputs[layer], autocast[layer])
    return calls


def _mixer(network: TokenNetwork, layer: int) -> TokenMixer:
    mixer = getattr(network.layers[layer], 'mixer', None)
    if not isinstance(mixer, TokenMixer) or not hasattr(mixer, 'out_proj'):
        kind = type(network.layers[layer]) if mixer is None else type(mixer)
        raise NoAttention(layer, f'{kind.__name__} is no token mixer with an output projection')
    return mixer
