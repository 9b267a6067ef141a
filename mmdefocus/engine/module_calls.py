"""Calls of the modules of a model, with their names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def observed_modules(
    model: nn.Module, enter: Callable[[str, Any], None], leave: Callable[[str, Any], None]
) -> Iterator[None]:
    """Call functions before and after every call of a module, inside the block.

    Args:
        model: Model whose modules are observed, itself under the name ``''``.
        enter: Called with the name of a module and its positional and keyword arguments.
        leave: Called with the name and the output, unless the module raises an error.
    """
    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda _, *inputs, name=name: enter(name, inputs), with_kwargs=True),
            module.register_forward_hook(lambda _, inputs, output, name=name: leave(name, output)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
