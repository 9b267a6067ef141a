"""The values that attention maps mix, recorded while the network computes them.

Shapes: B images, L tokens, K heads or groups of channels, d channels of a head or group.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from mmdefocus.models.backbones.block import DefocusBlock
from mmdefocus.models.mixers import AttentionMixer, MambaMixer, RetentionMixer

from ..networks import TokenNetwork


@dataclass
class HeadValues:
    """What the heads of a layer mix.

    Attributes:
        values: (B, K, L, d), once the layer has run.
        outputs: Map times values as the layer has computed it, (B, K, L, d), for layers whose code is not ours.
    """

    values: Tensor | None = None
    outputs: Tensor | None = None

    def reproduce(self, rows: Tensor) -> bool:
        """Return whether the first rows (B, K, T, L) of a map give the first outputs, as far as these are known."""
        if self.values is None or self.values.shape[:3] != (*rows.shape[:2], rows.shape[-1]):
            return False
        if self.outputs is None:
            return True
        expected = self.outputs[..., : rows.shape[-2], :].float()
        difference = (rows.float() @ self.values.float() - expected).abs().max()
        return bool(difference <= 1e-3 * expected.abs().max())


@contextmanager
def record_values(network: TokenNetwork, layers: list[int]) -> Iterator[dict[int, HeadValues]]:
    """Record the values of layers while the block runs the network.

    Values are v of the heads in attention and retention. In Mamba they are u, the sequence that enters the scan, after
    convolution and SiLU, in the groups of channels of the norm that follows. Other networks have values if a layer has
    a single attention with ``qkv``, ``proj`` and ``num_heads``, as the plain transformers of timm and MMPreTrain do.

    Args:
        network: The network.
        layers: Indices of layers.

    Yields:
        The values by layer, filled when the network runs; layers without known values are missing.
    """
    found: dict[int, HeadValues] = {}
    with ExitStack() as stack:
        for index in layers:
            layer = network.layers[index]
            if isinstance(layer, DefocusBlock):
                _watch_mixer(layer.mixer, found, index, stack)
            else:
                _watch_attention(layer, found, index, stack)
        yield found


def _watch_mixer(mixer: nn.Module, found: dict[int, HeadValues], index: int, stack: ExitStack) -> None:
    entry = HeadValues()
    if isinstance(mixer, AttentionMixer):
        _on_output(mixer.qkv, lambda qkv: _set(entry, 'values', qkv.chunk(3, -1)[2], mixer.num_heads), stack)
    elif isinstance(mixer, RetentionMixer):
        _on_output(mixer.v_proj, lambda v: _set(entry, 'values', v, mixer.num_heads), stack)
    elif isinstance(mixer, MambaMixer):
        _on_input(mixer.x_proj, lambda u: _set(entry, 'values', u, u.shape[-1] // mixer.group_size), stack)
    else:
        return
    found[index] = entry


def _watch_attention(layer: nn.Module, found: dict[int, HeadValues], index: int, stack: ExitStack) -> None:
    modules = [m for m in layer.modules() if all(hasattr(m, name) for name in ('qkv', 'proj', 'num_heads'))]
    if len(modules) != 1 or not isinstance(heads := modules[0].num_heads, int):
        return
    entry = found[index] = HeadValues()
    _on_output(modules[0].get_submodule('qkv'), lambda qkv: _set(entry, 'values', qkv.chunk(3, -1)[2], heads), stack)
    _on_input(modules[0].get_submodule('proj'), lambda outputs: _set(entry, 'outputs', outputs, heads), stack)


def _set(entry: HeadValues, name: str, tensor: Tensor, heads: int) -> None:
    if tensor.dim() == 3 and tensor.shape[-1] % heads == 0:  # otherwise, no tokens of the whole image
        setattr(entry, name, tensor.detach().unflatten(-1, (heads, -1)).transpose(1, 2))


def _on_output(module: nn.Module, store: Callable[[Tensor], None], stack: ExitStack) -> None:
    stack.callback(module.register_forward_hook(lambda _, args, output: store(output)).remove)


def _on_input(module: nn.Module, store: Callable[[Tensor], None], stack: ExitStack) -> None:
    stack.callback(module.register_forward_pre_hook(lambda _, args: store(args[0])).remove)
