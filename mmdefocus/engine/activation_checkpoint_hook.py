"""Activation checkpointing of named modules: less memory, recomputation in the backward pass."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint


@HOOKS.register_module()
class DefocusActivationCheckpointHook(Hook):
    """Checkpoint the activations of modules in training with ``torch.utils.checkpoint``; gradients do not change.

    DINO calls its transformer layers with keyword arguments. MMEngine's ``activation_checkpointing`` passes positional
    arguments only, and mmdet's ``num_cp`` needs fairscale.

    Args:
        modules: Names in the model, such as ``'encoder.layers'``; a ``ModuleList`` stands for each of its members.

    Raises:
        TypeError: ``modules`` is a string instead of a list of strings.
        ValueError: At the start of the training, the model has no module of a name.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        if isinstance(modules, str):
            raise TypeError(f'expected modules to be a list of names, got {modules!r}')
        self.modules = tuple(modules)

    def before_train(self, runner: Runner) -> None:
        """Wrap the modules."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name in self.modules:
            try:
                module = model.get_submodule(name)
            except AttributeError as error:
                children = ', '.join(child for child, _ in model.named_children())
                raise ValueError(
                    f'DefocusActivationCheckpointHook: the model has no module {name!r}; its own modules are {children}'
                ) from error
            for member in module if isinstance(module, nn.ModuleList) else [module]:
                member.forward = _checkpointed(member, member.forward)


def _checkpointed(module: nn.Module, forward: Callable) -> Callable:
    @wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not module.training:
            return forward(*args, **kwargs)
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)

    return wrapper
