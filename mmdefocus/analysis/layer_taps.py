"""Access to the tokens on their way through a network, and the mode in which gradients of them are taken."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone

from .errors import AnalysisError
from .networks import TokenNetwork

# Replaces what enters or leaves a layer: (index of the layer, tensor) → tensor of the same values.
Tap = Callable[[int, Tensor], Tensor]


@contextmanager
def taps(
    network: TokenNetwork, layers: Sequence[int], entering: Tap | None = None, leaving: Tap | None = None
) -> Iterator[None]:
    """Call functions with what enters and leaves layers while the block runs the network; they return what goes on.

    A function that keeps a tensor of the graph returns a clone of it: later operations may be in place.

    Raises:
        AnalysisError: A layer does not map a tensor to a tensor, or runs twice.
    """
    ran: set[int] = set()
    with ExitStack() as hooks:
        for index in dict.fromkeys(layers):

            def before(module: nn.Module, args: tuple, kwargs: dict, index: int = index) -> tuple[tuple, dict]:
                if index in ran:
                    raise AnalysisError(
                        f'layer {index} ({network.layer_names[index]}) runs twice; leave it out of layers'
                    )
                ran.add(index)
                if args:
                    return (_tapped(network, index, args[0], entering), *args[1:]), kwargs
                (name, first), *others = kwargs.items()
                return args, {name: _tapped(network, index, first, entering), **dict(others)}

            def after(module: nn.Module, args: tuple, output: Any, index: int = index) -> Any:
                if isinstance(output, tuple | list):
                    return type(output)((_tapped(network, index, output[0], leaving), *output[1:]))
                return _tapped(network, index, output, leaving)

            layer = network.layers[index]
            hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(layer.register_forward_hook(after).remove)
        yield


@contextmanager
def differentiable(model: nn.Module, checkpointing: bool = False) -> Iterator[None]:
    """Make the model a function of its images: evaluation mode, gradients of the images and of none of the parameters.

    All modes and flags are restored at the end, and no ``.grad`` is written.

    Args:
        model: The model.
        checkpointing: Whether backbones of mmdefocus recompute their blocks in the backward pass instead of keeping
            their activations. All others keep them: some of their checkpointing excludes ``torch.autograd.grad``.
    """
    with ExitStack() as restored, torch.inference_mode(False), torch.enable_grad():
        for module in model.modules():
            _set_for_now(restored, module, 'training', False)
            if hasattr(module, 'with_cp'):
                _set_for_now(restored, module, 'with_cp', checkpointing and isinstance(module, DefocusBackbone))
            if hasattr(module, 'grad_checkpointing'):
                _set_for_now(restored, module, 'grad_checkpointing', False)
        for parameter in model.parameters():
            _set_for_now(restored, parameter, 'requires_grad', False)
        yield


def check_images(images: Tensor) -> None:
    """Raise an AnalysisError unless the images are floating point, (B, 3, height, width) with B > 0."""
    if images.dim() != 4 or images.shape[1] != 3 or not len(images) or not images.is_floating_point():
        raise AnalysisError(
            'expected normalised images (batch, 3, height, width) of a floating-point type, got '
            f'{tuple(images.shape)} of {images.dtype}'
        )


def check_finite(gradient: Tensor, network: TokenNetwork, layer: int) -> Tensor:
    """Return the gradient of a layer; raise an AnalysisError if it has a NaN or an infinity."""
    if not gradient.isfinite().all():
        raise AnalysisError(
            f'the gradient of layer {layer} ({network.layer_names[layer]}) is not finite; check images and weights'
        )
    return gradient


def _tapped(network: TokenNetwork, index: int, value: Any, tap: Tap | None) -> Any:
    if tap is None:
        return value
    if not isinstance(value, Tensor):
        raise AnalysisError(
            f'layer {index} ({network.layer_names[index]}) takes or returns a {type(value).__name__}; expected a layer '
            'that maps a tensor of tokens to another'
        )
    return tap(index, value)


def _set_for_now(restored: ExitStack, owner: Any, name: str, value: bool) -> None:
    restored.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)
