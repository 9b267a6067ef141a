"""Name the module of a training step that makes the first non-finite value."""

from typing import Any

import torch
from torch import nn

from .module_calls import observed_modules
from .non_finite_origin import Origin
from .operator_watch import OperatorWatch
from .plain_batch import tensors_of


@torch.no_grad()
def first_non_finite_output(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[bool, str]:
    """Run the forward pass of a step.

    Returns:
        True if any value is not finite, and a sentence about the first one without its full stop.
    """
    running: list[tuple[str, bool]] = []  # (name, inputs are finite), outermost module first
    origins: list[str] = []

    def enter(name: str, inputs: Any) -> None:
        running.append((name, _is_finite(inputs)))

    def leave(name: str, output: Any) -> None:
        if not origins and not _is_finite(output):
            # With non-finite inputs, the origin is the innermost running module with finite ones.
            origins.append(next((name for name, finite in reversed(running) if finite), 'inputs'))
        running.pop()

    failure = None
    try:
        with observed_modules(model, enter, leave):
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # the modules that ran before any error count
        failure = error

    broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if failure is not None and not origins:
        where = f'Its origin is unknown: the second run of the model failed ({type(failure).__name__}: {failure})'
    elif not origins:
        where = 'The outputs of all modules are finite, the loss itself is not'
    elif origins == ['inputs']:
        part = 'annotations' if _is_finite([args, kwargs], in_samples=False) else 'images'
        where = f'The {part} of the batch are not finite'
    elif origins == ['']:
        where = f'Its origin is between the modules of {type(model).__name__}, or in the loss itself'
    else:
        (name,) = origins
        kind = type(model.get_submodule(name)).__name__
        where = f'The first module with finite inputs and an output that is not is {name} ({kind})'
        broken.sort(key=lambda parameter: not parameter.startswith(f'{name}.'))
    if broken:
        where += f'; {len(broken)} parameters are not finite since an earlier step, among them {broken[0]}'
    return bool(origins or broken), where


def first_non_finite_gradient(
    model: Any, args: tuple, kwargs: dict[str, Any], divisor: float, scale: float
) -> tuple[bool, str]:
    """Run the forward and the backward pass of a step, without an optimiser step.

    Args:
        model: Model of MMEngine. Its gradients are replaced.
        args: Positional arguments of its call.
        kwargs: Keyword arguments of its call.
        divisor: Divisor of the loss.
        scale: Factor of the loss.

    Returns:
        True if a gradient is not finite, and a sentence about the first one without its full stop.
    """
    model.zero_grad(set_to_none=True)
    with OperatorWatch(model, [args, kwargs]) as watch:
        total, _ = model.parse_losses(model(*args, **kwargs))
        (total / divisor * scale).backward()
        origin = origin_of_gradients(model, watch)
    if origin is None:
        return False, 'Its origin is unknown: a second run of the micro-batch gives finite gradients'
    return True, describe_gradient_origin(model, origin)


def origin_of_gradients(model: nn.Module, watch: OperatorWatch) -> Origin | None:
    """Return the first origin of non-finite gradients of the parameters, or None if all are finite."""
    found = [watch.origin_of(x.grad) for x in model.parameters() if x.grad is not None]
    origins = [origin for origin in found if origin is not None]
    return min(origins, key=lambda origin: (origin.harmless, origin.order), default=None)


def describe_gradient_origin(model: nn.Module, origin: Origin) -> str:
    """Return a sentence about the origin of a non-finite gradient, without its full stop."""
    kind = type(model.get_submodule(origin.module)).__name__
    name = f'{origin.module} ({kind})' if origin.module else kind
    if origin.kind == 'weights':
        return f'The parameter or buffer {origin.tensor} is not finite since an earlier step; {name} reads it first'
    if origin.kind == 'data':
        return f'The micro-batch holds values that are not finite; {name} reads them first'
    if not origin.node:
        return f'It begins in the forward pass of {name}, where {origin.operator} makes values that are not finite'
    return (
        'The first module in the backward pass with a finite gradient of its output and one of its input or '
        f'parameters that is not is {name}: {origin.operator} in {origin.node}'
    )


def _is_finite(value: Any, in_samples: bool = True) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors_of(value, in_samples))
