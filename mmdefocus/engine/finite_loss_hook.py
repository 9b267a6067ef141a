"""Stop at a loss that is not finite and locate its origin."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

REMEDIES = (
    'Lower the learning rate or lengthen its warm-up, clip gradients (optim_wrapper.clip_grad), train in float32 '
    "(optim_wrapper.type='OptimWrapper'), or inspect the images and labels of this batch"
)


@HOOKS.register_module()
class DefocusFiniteLossHook(Hook):
    """Stop at a loss that is not finite, before the optimiser uses it, and name the first module that produced it.

    The hook normally costs one check of the loss per iteration. If the loss is infinite or NaN, or an error interrupts
    its computation (as in DINO's matching), the same batch runs through the model again, with the same random numbers
    and a check of every module. An error without non-finite values in modules or parameters is raised unchanged.

    Raises:
        RuntimeError: In training, for such a loss. The message names the iteration, the losses or the error, the module
            whose inputs are finite and whose output is not, its parameters if they are not finite, and remedies.
    """

    def before_train(self, runner: Runner) -> None:
        """Start to check the losses of the model."""
        self._runner = runner
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._is_tracing = False
        self._own_forward = vars(self._model).get('forward')
        self._forward = self._model.forward
        # A hook of the runner would see the loss after the optimiser step, which has destroyed the weights by then; a
        # hook of the module would not see errors.
        self._model.forward = self._checked_forward

    def after_train(self, runner: Runner) -> None:
        """Restore the forward method of the model."""
        del self._model.forward
        if self._own_forward is not None:
            self._model.forward = self._own_forward

    def _checked_forward(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get('mode') != 'loss' or self._is_tracing:
            return self._forward(*args, **kwargs)
        states = torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        iteration = self._runner.iter
        try:
            output = self._forward(*args, **kwargs)
        except Exception as error:
            found = False
            with suppress(RuntimeError):  # after some errors a GPU is unusable
                found, origin = self._trace(states, args, kwargs)
            if not found:
                raise
            raise RuntimeError(
                f'the loss of iteration {iteration} cannot be computed ({type(error).__name__}: {error}). {origin}. '
                f'{REMEDIES}'
            ) from error
        total, losses = self._model.parse_losses(output)
        if not total.isfinite():
            _, origin = self._trace(states, args, kwargs)
            values = ', '.join(f'{name}={value.item():g}' for name, value in losses.items() if 'loss' in name)
            raise RuntimeError(f'the loss of iteration {iteration} is not finite ({values}). {origin}. {REMEDIES}')
        return output

    def _trace(self, states: tuple[Tensor, Tensor | None], args: tuple, kwargs: dict[str, Any]) -> tuple[bool, str]:
        cpu_state, cuda_state = states
        torch.set_rng_state(cpu_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state)
        # The losses of a distributed detector wait for the other processes, which do not repeat the batch.
        mode = 'loss' if get_world_size() == 1 else 'tensor'
        self._is_tracing = True
        try:
            return _first_non_finite(self._model, args, kwargs | {'mode': mode})
        finally:
            self._is_tracing = False


@torch.no_grad()
def _first_non_finite(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[bool, str]:
    """Return True if any value is not finite, and a sentence about the first one without its full stop."""
    running: list[tuple[str, bool]] = []  # (name, inputs are finite), outermost module first
    origins: list[str] = []

    def enter(name: str, *inputs: Any) -> None:
        running.append((name, _is_finite(inputs)))

    def leave(name: str, output: Any) -> None:
        if not origins and not _is_finite(output):
            # With non-finite inputs, the origin is the innermost running module with finite ones.
            origins.append(next((name for name, finite in reversed(running) if finite), 'inputs'))
        running.pop()

    handles = []
    for name, module in model.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda _, *inputs, name=name: enter(name, *inputs), with_kwargs=True),
            module.register_forward_hook(lambda _, inputs, output, name=name: leave(name, output)),
        ]
    failure = None
    try:
        model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # the modules that ran before any error count
        failure = error
    finally:
        for handle in handles:
            handle.remove()

    broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if failure is not None and not origins:
        where = f'Its origin is unknown: the second run of the model failed ({type(failure).__name__}: {failure})'
    elif not origins:
        where = 'The outputs of all modules are finite, the loss itself is not'
    elif origins == ['inputs']:
        where = 'The images of the batch are not finite'
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


def _is_finite(value: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
